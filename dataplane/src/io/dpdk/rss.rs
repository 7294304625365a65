//! Makes a card's receive-side scaling the ownership function, and believes only what it reads
//! back: whether flows arrive at their owner is decided here, once, at start.

use dpdk_sys::{flags, rte_eth_dev_info, rte_eth_rss_conf, rte_eth_rss_reta_entry64};

use crate::steer::{BUCKETS, KEY_LEN};
use crate::types::CoreId;

/// Drivers without a card of their own: they hash as they please, whatever they accept.
/// net_tap moves a flow to the queue that last sent on it, net_null reads back every key.
const SOFTWARE: &[&str] = &[
    "net_tap",
    "net_af_packet",
    "net_af_xdp",
    "net_memif",
    "net_ring",
    "net_null",
    "net_pcap",
    "net_vhost",
    "net_virtio_user",
];

/// Of these, those that log errors when asked for RSS, at every start: not asked.
const DEAF: &[&str] = &["net_tap"];

/// The kinds of packets whose hash takes addresses and ports; both must be, or the port does
/// not agree with the ownership function.
const FOUR_TUPLE: u64 = flags::RSS_IPV4_TCP | flags::RSS_IPV4_UDP;

/// The kinds of packets that are hashed at all. A card that cannot hash SCTP's ports spreads
/// it by addresses, and workers hand it over.
const HASHED: u64 = FOUR_TUPLE | flags::RSS_IPV4_SCTP | flags::RSS_IPV4 | flags::RSS_FRAG_IPV4;

const GROUP: usize = dpdk_sys::RTE_ETH_RETA_GROUP_SIZE as usize;

/// Keys are 40 bytes, or 52 on some cards.
const MAX_KEY: usize = 255;

/// Why a port is unaligned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// No card behind it.
    #[error("a software driver, whose queues follow no key")]
    Software,
    /// A worker has no receive queue, so some owners would get nothing.
    #[error("{queues} receive queues for {workers} workers")]
    Queues {
        /// Receive queues.
        queues: u16,
        /// Workers.
        workers: u8,
    },
    /// It cannot hash TCP and UDP by addresses and ports.
    #[error("it does not hash TCP and UDP over IPv4 by addresses and ports")]
    Hash,
    /// It did not take the key.
    #[error("it did not keep the RSS key: {0}")]
    Key(String),
    /// Its table's size cannot express the map.
    #[error("its RSS table of {0} entries cannot hold the map of {BUCKETS}")]
    TableSize(u16),
    /// It did not take the table.
    #[error("it did not keep the RSS table: {0}")]
    Table(String),
}

/// Whether `driver` has no card behind it.
pub(super) fn is_software(driver: &str) -> bool {
    SOFTWARE.contains(&driver)
}

/// The hash functions to configure a port with, of those that it offers.
pub(super) fn hash_functions(info: &rte_eth_dev_info) -> u64 {
    info.flow_type_rss_offloads & HASHED
}

/// `key` in the length that the card wants (0 when it does not say), repeated as needed: a
/// packet's hash takes its first bytes only.
pub(super) fn stretch(key: &[u8; KEY_LEN], wanted: u8) -> Vec<u8> {
    let len = if wanted == 0 {
        KEY_LEN
    } else {
        usize::from(wanted)
    };
    key.iter().copied().cycle().take(len).collect()
}

/// The map as a table of `size` entries, each a queue below `queues`. A card looks its table up
/// by the hash's low bits as the map is, so a bigger table repeats the map; a smaller one can
/// hold it only if the map repeats itself. `None` when it cannot.
fn table(map: &[CoreId; BUCKETS], size: u16, queues: u16) -> Option<Vec<u16>> {
    let size = usize::from(size);
    if size == 0 || !size.is_power_of_two() {
        return None;
    }
    let folds = (0..BUCKETS).all(|bucket| map[bucket] == map[bucket % size.min(BUCKETS)]);
    let queue = |entry: usize| u16::from(map[entry % BUCKETS].0) % queues;
    folds.then(|| (0..size).map(queue).collect())
}

/// Programs key and table into the started port `port` of `driver` and reads both back. A
/// software driver is programmed as well, for what it may be worth, but not believed.
///
/// # Errors
/// The first thing in which the port differs from what was asked.
pub(super) fn program(
    port: u16,
    driver: &str,
    info: &rte_eth_dev_info,
    key: &[u8; KEY_LEN],
    map: &[CoreId; BUCKETS],
    queues: u16,
) -> Result<(), Misfit> {
    if DEAF.contains(&driver) {
        return Err(Misfit::Software);
    }
    let functions = hash_functions(info);
    if functions & FOUR_TUPLE != FOUR_TUPLE {
        return Err(Misfit::Hash);
    }
    program_key(port, functions, &stretch(key, info.hash_key_size))?;
    let table = table(map, info.reta_size, queues).ok_or(Misfit::TableSize(info.reta_size))?;
    program_table(port, &table)?;
    if is_software(driver) {
        return Err(Misfit::Software);
    }
    Ok(())
}

fn program_key(port: u16, functions: u64, key: &[u8]) -> Result<(), Misfit> {
    let failed = |code: i32| Misfit::Key(super::errno_text(code));
    let mut wanted = key.to_vec();
    let mut conf = rte_eth_rss_conf {
        rss_key: wanted.as_mut_ptr(),
        rss_key_len: wanted.len() as u8,
        rss_hf: functions,
    };
    // SAFETY: `conf` and the key it points to live during the call.
    let code = unsafe { dpdk_sys::rte_eth_dev_rss_hash_update(port, &raw mut conf) };
    if code != 0 {
        return Err(failed(code));
    }
    let mut found = [0u8; MAX_KEY];
    let mut conf = rte_eth_rss_conf {
        rss_key: found.as_mut_ptr(),
        rss_key_len: key.len() as u8,
        rss_hf: 0,
    };
    // SAFETY: as above; the buffer is as long as any 8-bit length.
    let code = unsafe { dpdk_sys::rte_eth_dev_rss_hash_conf_get(port, &raw mut conf) };
    if code != 0 {
        return Err(failed(code));
    }
    if &found[..key.len()] != key {
        return Err(Misfit::Key("it reads back another".into()));
    }
    if conf.rss_hf & FOUR_TUPLE != FOUR_TUPLE {
        return Err(Misfit::Hash);
    }
    Ok(())
}

fn program_table(port: u16, table: &[u16]) -> Result<(), Misfit> {
    let failed = |code: i32| Misfit::Table(super::errno_text(code));
    let size = table.len() as u16;
    let groups = table.len().div_ceil(GROUP);
    let all = |reta| rte_eth_rss_reta_entry64 {
        mask: u64::MAX,
        reta,
    };
    let mut wanted = vec![all([0; GROUP]); groups];
    for (entry, queue) in table.iter().enumerate() {
        wanted[entry / GROUP].reta[entry % GROUP] = *queue;
    }
    // SAFETY: `groups` groups hold `size` entries.
    let code = unsafe { dpdk_sys::rte_eth_dev_rss_reta_update(port, wanted.as_mut_ptr(), size) };
    if code != 0 {
        return Err(failed(code));
    }
    let mut found = vec![all([u16::MAX; GROUP]); groups];
    // SAFETY: as above.
    let code = unsafe { dpdk_sys::rte_eth_dev_rss_reta_query(port, found.as_mut_ptr(), size) };
    if code != 0 {
        return Err(failed(code));
    }
    let differs =
        (0..table.len()).find(|entry| found[entry / GROUP].reta[entry % GROUP] != table[*entry]);
    match differs {
        None => Ok(()),
        Some(entry) => Err(Misfit::Table(format!(
            "entry {entry} reads back {} for {}",
            found[entry / GROUP].reta[entry % GROUP],
            table[entry]
        ))),
    }
}

#[cfg(test)]
mod tests;

//! Opens ports: from a device's name to one queue pair for each worker.

use std::mem::MaybeUninit;
use std::sync::Arc;

use dpdk_sys::{flags, rte_eth_conf, rte_eth_dev_info};

use super::bond::{self, Bond};
use super::device::Device;
use super::eal::Eal;
use super::pool::{Pool, largest_mtu};
use super::queue::DpdkQueue;
use super::rss::{self, Misfit};
use super::{errno_text, log};
use crate::steer::Alignment;
use crate::types::{Mac, PortId};

mod error;
mod handle;
mod options;

pub use error::{PortError, Problem};
pub(super) use handle::{Claim, link_of, raw_stats};
pub use handle::{Link, PortHandle, PortStats};
pub use options::PortOptions;

/// An open, started port.
#[derive(Debug)]
pub struct OpenPort {
    /// Its index in the order of [`open_ports`]' options.
    pub id: PortId,
    /// The operator's name for it.
    pub name: String,
    /// Its MAC address.
    pub mac: Mac,
    /// Largest IP packet, bytes.
    pub mtu: u16,
    /// DPDK's driver: "net_tap".
    pub driver: String,
    /// The NUMA node of its card, if it has one.
    pub socket: Option<u32>,
    /// Receive queues: those of workers `0..rx_queues`.
    pub rx_queues: u8,
    /// Transmit queues: those of workers `0..tx_queues`.
    pub tx_queues: u8,
    /// Whether flows arrive at their owner. With one worker they do.
    pub alignment: Alignment,
    /// Why it is unaligned, if it is.
    pub misfit: Option<Misfit>,
    /// One for each worker, in their order.
    pub queues: Vec<DpdkQueue>,
    /// For control. The port closes when the handle, its clones and all queues are gone.
    pub handle: PortHandle,
}

/// Opens and starts `ports`, all receiving into `pool`; their ids are their places in the list.
///
/// # Errors
/// The first port that cannot be opened, and why; those before it are closed again.
pub fn open_ports(
    eal: &Eal,
    pool: &Pool,
    ports: &[PortOptions],
) -> Result<Vec<OpenPort>, PortError> {
    let mut open = Vec::with_capacity(ports.len());
    let mut descriptors = 0;
    for (index, options) in ports.iter().enumerate() {
        let id = PortId(index as u8);
        let port = open_one(eal, pool, options, id, &mut descriptors);
        open.push(port.map_err(|problem| PortError {
            port: options.name.clone(),
            device: options.device.clone(),
            problem,
        })?);
    }
    Ok(open)
}

/// DPDK's number for the port that it made of `device`.
pub(super) fn find(_eal: &Eal, device: &Device) -> Option<u16> {
    let mut next = 0;
    loop {
        // SAFETY: walks DPDK's table of ports; EAL runs (`_eal`).
        let id = unsafe { dpdk_sys::rte_eth_find_next(next) };
        if u32::from(id) >= dpdk_sys::RTE_MAX_ETHPORTS {
            return None; // past the last port
        }
        let info = info(id).ok()?;
        // SAFETY: a port's device and its name live as long as the port.
        let name = unsafe { std::ffi::CStr::from_ptr(dpdk_sys::rte_dev_name(info.device)) };
        if name.to_bytes() == device.name().as_bytes() {
            return Some(id);
        }
        next = id + 1;
    }
}

/// What the driver says of port `id`.
pub(super) fn info(id: u16) -> Result<rte_eth_dev_info, Problem> {
    let mut info = MaybeUninit::zeroed();
    // SAFETY: DPDK checks the number and fills the struct.
    let code = unsafe { dpdk_sys::rte_eth_dev_info_get(id, info.as_mut_ptr()) };
    step("asking the driver", code)?;
    // SAFETY: filled; all zeroes were valid before.
    Ok(unsafe { info.assume_init() })
}

/// The outcome of a step in which DPDK answered `code`.
fn step(step: &'static str, code: i32) -> Result<(), Problem> {
    if code >= 0 {
        return Ok(());
    }
    Err(Problem::Refused {
        step,
        reason: errno_text(code),
        log: log::recent_in_brackets(),
    })
}

/// Like [`step`], for what a driver may lack altogether: whether it has it.
pub(super) fn optional(what: &'static str, code: i32) -> Result<bool, Problem> {
    /// ENOTSUP on Linux: the driver has no such function.
    const NOT_SUPPORTED: i32 = -95;
    match code {
        NOT_SUPPORTED => Ok(false),
        code => step(what, code).map(|()| true),
    }
}

/// What a port gets, once its driver was asked.
struct Plan {
    rx_queues: u16,
    tx_queues: u16,
    rx_descriptors: u16,
    tx_descriptors: u16,
    driver: String,
    /// No card behind it, or behind one of a bond's members.
    software: bool,
}

/// A card behind a port: the port's own, or a member of a bond.
struct Card {
    number: u16,
    info: rte_eth_dev_info,
    driver: String,
}

impl Card {
    fn ask(number: u16) -> Result<Card, Problem> {
        let info = info(number)?;
        // SAFETY: the driver's name is a static string.
        let driver = unsafe { std::ffi::CStr::from_ptr(info.driver_name) }
            .to_string_lossy()
            .into_owned();
        Ok(Card {
            number,
            info,
            driver,
        })
    }
}

fn open_one(
    eal: &Eal,
    pool: &Pool,
    options: &PortOptions,
    id: PortId,
    descriptors: &mut u32,
) -> Result<OpenPort, Problem> {
    log::take_recent();
    let bond = options.bond.as_ref();
    let bond = bond.map(|bond| Bond::make(eal, &options.device, bond));
    let bond = bond.transpose()?;
    let number = match &bond {
        Some(bond) => bond.id(),
        None => find(eal, &Device::parse(&options.device)?).ok_or(Problem::Absent)?,
    };
    let cards: Vec<Card> = match &bond {
        Some(bond) => bond.ids().map(Card::ask).collect::<Result<_, _>>()?,
        None => vec![Card::ask(number)?],
    };
    let info = info(number)?;
    let plan = plan(number, options, &info, &cards)?;
    for card in &cards {
        check_room(options, &card.info, pool)?;
    }
    let (rx, tx) = options.held(plan.rx_descriptors, plan.tx_descriptors);
    *descriptors += u32::from(plan.rx_queues) * rx + u32::from(plan.tx_queues) * tx;
    if *descriptors > pool.demand().descriptors {
        return Err(Problem::Descriptors {
            descriptors: *descriptors,
            counted: pool.demand().descriptors,
        });
    }
    // From here on, whatever fails, the port is closed again.
    let claim = Arc::new(Claim::new(number, bond).ok_or(Problem::InUse)?);
    configure(number, options, &info, &plan)?;
    set_up_queues(number, &info, &plan, pool)?;
    // SAFETY: configured, all queues set up.
    let started = unsafe { dpdk_sys::rte_eth_dev_start(number) };
    match claim.bond() {
        Some(_) => bond::step("starting", started)?,
        None => step("starting", started)?,
    }
    accept_groups(number)?;
    if let Some(bond) = claim.bond() {
        bond.hear_the_bond(mac(number)?.0)?;
    }

    let misfit = misfit(options, &cards, &plan);
    let queues: Vec<DpdkQueue> = (0..u16::from(options.workers))
        .map(|worker| {
            let (rx, tx) = (worker < plan.rx_queues, worker < plan.tx_queues);
            let (rx, tx) = (rx.then_some(worker), tx.then_some(worker));
            // SAFETY: set up above; each worker's number occurs once.
            unsafe { DpdkQueue::new(Arc::clone(&claim), rx, tx) }
        })
        .collect();
    let handle = PortHandle::new(claim, &queues);
    Ok(OpenPort {
        id,
        name: options.name.clone(),
        mac: mac(number)?,
        mtu: mtu(number)?,
        driver: plan.driver,
        socket: socket(number),
        rx_queues: plan.rx_queues as u8,
        tx_queues: plan.tx_queues as u8,
        alignment: match misfit {
            None => Alignment::Aligned,
            Some(_) => Alignment::Unaligned,
        },
        misfit,
        queues,
        handle,
    })
}

/// Queues and descriptors: what is asked for, within what the driver can.
fn plan(
    number: u16,
    options: &PortOptions,
    info: &rte_eth_dev_info,
    cards: &[Card],
) -> Result<Plan, Problem> {
    if !(1..=128).contains(&options.workers) {
        return Err(Problem::Workers(options.workers));
    }
    let driver = match &options.bond {
        Some(_) => "net_bonding".to_owned(),
        None => cards[0].driver.clone(),
    };
    let workers = u16::from(options.workers);
    let (rx_queues, tx_queues) = (
        workers.min(info.max_rx_queues),
        workers.min(info.max_tx_queues),
    );
    if rx_queues == 0 || tx_queues == 0 {
        return Err(Problem::NoQueues {
            rx: rx_queues,
            tx: tx_queues,
        });
    }
    // The kernel fans out over all of net_af_packet's sockets, used or not.
    let unpolled =
        |card: &&Card| card.driver == "net_af_packet" && card.info.max_rx_queues > rx_queues;
    if let Some(card) = cards.iter().find(unpolled) {
        return Err(Problem::UnpolledQueues {
            queues: card.info.max_rx_queues,
            workers: options.workers,
        });
    }
    let (mut rx, mut tx) = (options.rx_descriptors, options.tx_descriptors);
    // SAFETY: both numbers live during the call.
    let code =
        unsafe { dpdk_sys::rte_eth_dev_adjust_nb_rx_tx_desc(number, &raw mut rx, &raw mut tx) };
    step("choosing descriptors", code)?;
    Ok(Plan {
        rx_queues,
        tx_queues,
        rx_descriptors: rx,
        tx_descriptors: tx,
        driver,
        software: cards.iter().any(|card| rss::is_software(&card.driver)),
    })
}

/// Whether packets of the MTU fit the device and the buffers.
fn check_room(options: &PortOptions, info: &rte_eth_dev_info, pool: &Pool) -> Result<(), Problem> {
    let mtu = options.mtu;
    // RFC 791: every module must take 68 bytes. Some drivers leave their least at 0.
    let (min, max) = (info.min_mtu.max(68), info.max_mtu);
    if !(min..=max).contains(&mtu) {
        return Err(Problem::Mtu { mtu, min, max });
    }
    let max = largest_mtu(pool.room());
    if mtu > max {
        return Err(Problem::Room { mtu, max });
    }
    Ok(())
}

/// Queues, RSS, checksums verified by the card; nothing that makes big frames of small ones.
fn configure(
    number: u16,
    options: &PortOptions,
    info: &rte_eth_dev_info,
    plan: &Plan,
) -> Result<(), Problem> {
    // SAFETY: a plain C struct of integers and pointers, for which zeroes mean "nothing".
    let mut conf: rte_eth_conf = unsafe { MaybeUninit::zeroed().assume_init() };
    let mut key = rss::stretch(&options.key, info.hash_key_size);
    conf.rxmode.mtu = u32::from(options.mtu);
    conf.rxmode.offloads = rx_offloads(info, plan);
    // Software drivers as a bond's members log errors when the bond passes that on to them.
    let functions = match options.bond.is_some() && plan.software {
        true => 0,
        false => rss::hash_functions(info),
    };
    if plan.rx_queues > 1 && functions != 0 {
        conf.rxmode.mq_mode = dpdk_sys::RTE_ETH_MQ_RX_RSS;
        conf.rx_adv_conf.rss_conf.rss_hf = functions;
        conf.rx_adv_conf.rss_conf.rss_key = key.as_mut_ptr();
        conf.rx_adv_conf.rss_conf.rss_key_len = key.len() as u8;
    }
    // SAFETY: `conf` and the key live during the call, in which DPDK copies them.
    let code = unsafe {
        dpdk_sys::rte_eth_dev_configure(number, plan.rx_queues, plan.tx_queues, &raw const conf)
    };
    step("configuring", code)?;
    if options.bond.is_some() {
        return Ok(()); // it gives its members its MTU when it starts them, and cannot before
    }
    // SAFETY: a number and a number.
    let code = unsafe { dpdk_sys::rte_eth_dev_set_mtu(number, options.mtu) };
    optional("setting the MTU", code)?; // net_memif has none to set
    Ok(())
}

/// Checksum verification where a card does it. Software drivers would do it on our processor,
/// for every frame, before the worker knows whether it matters.
fn rx_offloads(info: &rte_eth_dev_info, plan: &Plan) -> u64 {
    const CHECKSUMS: u64 =
        flags::RX_OFFLOAD_IPV4_CKSUM | flags::RX_OFFLOAD_UDP_CKSUM | flags::RX_OFFLOAD_TCP_CKSUM;
    if plan.software {
        return 0;
    }
    info.rx_offload_capa & CHECKSUMS
}

fn set_up_queues(
    number: u16,
    info: &rte_eth_dev_info,
    plan: &Plan,
    pool: &Pool,
) -> Result<(), Problem> {
    let mut rx_conf = info.default_rxconf;
    rx_conf.offloads = rx_offloads(info, plan);
    let mut tx_conf = info.default_txconf;
    tx_conf.offloads = 0;
    // SAFETY: a number.
    let socket = unsafe { dpdk_sys::rte_eth_dev_socket_id(number) } as u32;
    for queue in 0..plan.rx_queues {
        // SAFETY: the configuration lives during the call, the pool as long as the process.
        let code = unsafe {
            dpdk_sys::rte_eth_rx_queue_setup(
                number,
                queue,
                plan.rx_descriptors,
                socket,
                &raw const rx_conf,
                pool.as_ptr(),
            )
        };
        step("setting up a receive queue", code)?;
    }
    for queue in 0..plan.tx_queues {
        // SAFETY: as above.
        let code = unsafe {
            dpdk_sys::rte_eth_tx_queue_setup(
                number,
                queue,
                plan.tx_descriptors,
                socket,
                &raw const tx_conf,
            )
        };
        step("setting up a transmit queue", code)?;
    }
    Ok(())
}

/// Lets multicast in (VRRP, OSPF, neighbour discovery): by itself, or with everything else
/// where the driver knows no other way. Drivers that filter nothing have neither.
fn accept_groups(number: u16) -> Result<(), Problem> {
    // SAFETY: a number.
    let code = unsafe { dpdk_sys::rte_eth_allmulticast_enable(number) };
    if optional("accepting multicast", code)? {
        return Ok(());
    }
    // SAFETY: a number.
    let code = unsafe { dpdk_sys::rte_eth_promiscuous_enable(number) };
    optional("accepting all frames", code).map(|_| ())
}

/// What keeps the port from being aligned; with one worker nothing does.
///
/// A bond's members are programmed and read back one by one: what the bond says of itself is only
/// what it was told.
fn misfit(options: &PortOptions, cards: &[Card], plan: &Plan) -> Option<Misfit> {
    if options.workers == 1 {
        return None;
    }
    let (key, map, queues) = (&options.key, &options.map, plan.rx_queues);
    // Fewer queues are programmed too: their workers at least share the work.
    let program =
        |card: &Card| rss::program(card.number, &card.driver, &card.info, key, map, queues);
    let programmed = cards.iter().try_for_each(program);
    if queues != u16::from(options.workers) {
        return Some(Misfit::Queues {
            queues,
            workers: options.workers,
        });
    }
    programmed.err()
}

fn mac(number: u16) -> Result<Mac, Problem> {
    let mut address = dpdk_sys::rte_ether_addr { addr_bytes: [0; 6] };
    // SAFETY: the address lives during the call.
    let code = unsafe { dpdk_sys::rte_eth_macaddr_get(number, &raw mut address) };
    step("asking for the MAC address", code)?;
    Ok(Mac(address.addr_bytes))
}

fn mtu(number: u16) -> Result<u16, Problem> {
    let mut mtu = 0;
    // SAFETY: the number lives during the call.
    let code = unsafe { dpdk_sys::rte_eth_dev_get_mtu(number, &raw mut mtu) };
    step("asking for the MTU", code)?;
    Ok(mtu)
}

fn socket(number: u16) -> Option<u32> {
    // SAFETY: a number.
    let socket = unsafe { dpdk_sys::rte_eth_dev_socket_id(number) };
    u32::try_from(socket).ok() // -1: none
}

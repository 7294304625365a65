//! How long connections last, when they open and when they give way: `[timeouts]`, a service's
//! own `timeouts`, `[ipvs]`, which has LVS's sysctls under LVS's names, and `[defense]`.
#![forbid(unsafe_code)]

use weir_dataplane::Tick;
use weir_dataplane::conn::Eviction;
use weir_dataplane::conn::state::{Rules, State, TimeoutChanges, Timeouts};

use super::defaults::MAX_CONNECTIONS_RANGE;
use super::policy::syn_proxy;
use super::reader::{Key, Problems, Section};
use super::scalars;

/// Every key of `[timeouts]` with its default and the state it is for.
macro_rules! timeouts {
    ($($key:literal, $default:literal => $state:ident,)+) => {
        pub(super) const TIMEOUTS: &[Key] = &[
            $(Key::new($key, concat!("\"", $default, "\"")),)+
        ];
        const STATES: &[(&str, State)] = &[$(($key, State::$state),)+];
    };
}

timeouts! {
    "none", "2s" => None,
    "established", "900s" => Established,
    "syn_sent", "120s" => SynSent,
    "syn_recv", "60s" => SynRecv,
    "fin_wait", "120s" => FinWait,
    "time_wait", "120s" => TimeWait,
    "close", "10s" => Close,
    "close_wait", "60s" => CloseWait,
    "last_ack", "30s" => LastAck,
    "listen", "120s" => Listen,
    "synack", "120s" => SynAck,
    "udp", "300s" => Udp,
    "icmp", "30s" => Icmp,
    "sctp_init1", "4s" => SctpInit1,
    "sctp_init", "61s" => SctpInit,
    "sctp_cookie_sent", "61s" => SctpCookieSent,
    "sctp_cookie_replied", "61s" => SctpCookieReplied,
    "sctp_cookie_wait", "61s" => SctpCookieWait,
    "sctp_cookie", "61s" => SctpCookie,
    "sctp_cookie_echoed", "61s" => SctpCookieEchoed,
    "sctp_established", "900s" => SctpEstablished,
    "sctp_shutdown_sent", "61s" => SctpShutdownSent,
    "sctp_shutdown_received", "61s" => SctpShutdownReceived,
    "sctp_shutdown_ack_sent", "61s" => SctpShutdownAckSent,
    "sctp_rejected", "4s" => SctpRejected,
    "sctp_closed", "61s" => SctpClosed,
}

pub(super) const IPVS: &[Key] = &[
    Key::new("sloppy_tcp", "false"),
    Key::new("sloppy_sctp", "false"),
    Key::new("secure_tcp", "0"),
    Key::new("conn_reuse_mode", "1"),
    Key::new("expire_nodest_conn", "false"),
    Key::new("expire_quiescent_template", "false"),
    Key::new("pmtu_disc", "true"),
    Key::new("drop_entry", "0"),
    Key::new("drop_packet", "0"),
    Key::new("am_droprate", "10"),
    Key::new("amemthresh", "100_000"),
];

pub(super) const DEFENSE: &[Key] = &[
    Key::new("eviction", "\"closing-first\""),
    Key::new("cookie_secret", "\"00112233445566778899aabbccddeeff\""),
];

/// `[timeouts]`.
pub(super) fn timeouts(p: &mut Problems<'_>, top: &Section<'_>) -> Timeouts {
    Timeouts::default().with(&changes(p, top))
}

/// The `timeouts` that a table sets.
pub(super) fn changes(p: &mut Problems<'_>, of: &Section<'_>) -> TimeoutChanges {
    let section = of.table(p, "timeouts", TIMEOUTS);
    let mut changes = TimeoutChanges::default();
    for &(key, state) in STATES {
        if let Some(duration) = section.parsed(p, key, scalars::duration) {
            let ticks = duration.value.as_millis() * u128::from(Tick::PER_SECOND) / 1000;
            changes.set(state, ticks as u32); // at most 30 days, checked
        }
    }
    changes
}

/// `[ipvs]` and `[defense]`.
pub(super) fn rules(p: &mut Problems<'_>, top: &Section<'_>) -> Rules {
    let section = top.table(p, "ipvs", IPVS);
    let default = Rules::default();
    let mut flag = |key, default| section.boolean(p, key).map_or(default, |b| b.value);
    let sloppy_tcp = flag("sloppy_tcp", default.sloppy_tcp);
    let sloppy_sctp = flag("sloppy_sctp", default.sloppy_sctp);
    let expire_nodest_conn = flag("expire_nodest_conn", default.expire_nodest_conn);
    let expire_quiescent_template = flag(
        "expire_quiescent_template",
        default.expire_quiescent_template,
    );
    let pmtu_disc = flag("pmtu_disc", default.pmtu_disc);
    let defense = top.table(p, "defense", DEFENSE);
    let cookie_secret = defense.parsed(p, "cookie_secret", syn_proxy::secret);
    let mut mode = |key, default| {
        let mode = section.integer(p, key, 0..=3, "");
        mode.map_or(default, |m| m.value as u8) // at most 3, checked
    };
    let (secure_tcp, conn_reuse_mode, drop_entry, drop_packet) = (
        mode("secure_tcp", default.secure_tcp),
        mode("conn_reuse_mode", default.conn_reuse_mode),
        mode("drop_entry", default.drop_entry),
        mode("drop_packet", default.drop_packet),
    );
    let mut number = |key, range, unit, default| {
        let number = section.integer(p, key, range, unit);
        number.map_or(default, |n| n.value)
    };
    let am_droprate = number(
        "am_droprate",
        1..=1_000_000,
        " packets",
        default.am_droprate,
    );
    let places = *MAX_CONNECTIONS_RANGE.end();
    let amemthresh = number("amemthresh", 1..=places, " connections", default.amemthresh);
    let evictions = Eviction::ALL.map(|eviction| (eviction.name(), eviction));
    let eviction = defense.choice(p, "eviction", &evictions, &[]);
    Rules {
        sloppy_tcp,
        sloppy_sctp,
        secure_tcp,
        conn_reuse_mode,
        expire_nodest_conn,
        expire_quiescent_template,
        pmtu_disc,
        cookie_secret: cookie_secret.map(|s| s.value),
        drop_entry,
        drop_packet,
        am_droprate,
        amemthresh,
        eviction: eviction.map_or(default.eviction, |e| e.value),
    }
}

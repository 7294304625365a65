//! `bond` of a `[[port]]`: several devices as one port, in the words of Linux's bonding driver.
#![forbid(unsafe_code)]

use std::time::Duration;

use weir_dataplane::io::{BondHash, BondMode};

use super::defaults::{self, MAX_MEMBERS, MONITOR_RANGE};
use super::reader::{At, Key, Problems, Section};
use super::scalars;
use super::types::{Bond, Device};
use super::words::{alternatives, listed};

const KEY: &str = "bond";
pub(super) const BOND: &[Key] = &[
    Key::new("mode", "\"802.3ad\""),
    Key::new("members", "[\"0000:3b:00.0\", \"0000:3b:00.1\"]"),
    Key::new("primary", "\"0000:3b:00.0\""),
    Key::new("hash", "\"layer3+4\""),
    Key::new("monitor", "\"100ms\""),
];

/// Every mode by its name.
pub(super) const MODES: &[(&str, BondMode)] = &[
    ("802.3ad", BondMode::Lacp),
    ("active-backup", BondMode::ActiveBackup),
    ("balance-xor", BondMode::Xor),
    ("balance-tlb", BondMode::Tlb),
    ("balance-rr", BondMode::RoundRobin),
    ("broadcast", BondMode::Broadcast),
];

/// Every hash by its name.
pub(super) const HASHES: &[(&str, BondHash)] = &[
    ("layer2", BondHash::Layer2),
    ("layer2+3", BondHash::Layer23),
    ("layer3+4", BondHash::Layer34),
];

/// A `bond` as written.
#[derive(Debug)]
pub(super) struct BondDraft<'t> {
    pub(super) section: Section<'t>,
    mode: Option<At<BondMode>>,
    hash: BondHash,
    pub(super) members: Vec<At<Device>>,
    /// The place of the primary among the members.
    primary: Option<usize>,
    monitor: Duration,
}

/// The bond of the port `of`, if it is one.
pub(super) fn bond<'t>(p: &mut Problems<'_>, of: &Section<'t>) -> Option<BondDraft<'t>> {
    if !of.has(KEY) {
        return None;
    }
    let section = of.table(p, KEY, BOND);
    if section.is_absent() {
        return None; // no table: reported
    }
    for key in ["mode", "members"] {
        if !section.has(key) {
            section.missing(p, key);
        }
    }
    let mode = section.parsed(p, "mode", mode);
    let hash = section.choice(p, "hash", HASHES, &[]);
    let members = section.texts(p, "members", scalars::device);
    let members = members.unwrap_or_default();
    let monitor = section.parsed(p, "monitor", |text| {
        scalars::duration_within(text, &MONITOR_RANGE, r#""10ms" to "1s""#)
    });
    let draft = BondDraft {
        primary: primary(p, &section, &members),
        mode,
        hash: hash.map_or(defaults::BOND_HASH, |h| h.value),
        members,
        monitor: monitor.map_or(defaults::MONITOR, |m| m.value),
        section,
    };
    check(p, &draft);
    Some(draft)
}

fn mode(text: &str) -> Result<BondMode, String> {
    if let Some((_, mode)) = MODES.iter().find(|(name, _)| *name == text) {
        return Ok(*mode);
    }
    let names = alternatives(MODES.iter().map(|(name, _)| *name));
    Err(match text {
        "balance-alb" => format!(
            "its clients send to the members' own MAC addresses, which Weir does not listen to; \
             use {names}"
        ),
        _ => format!("not known; use {names}"),
    })
}

fn primary(p: &mut Problems<'_>, section: &Section<'_>, members: &[At<Device>]) -> Option<usize> {
    let primary = section.parsed(p, "primary", scalars::device)?;
    let is_it = |member: &At<Device>| member.value.name() == primary.value.name();
    let place = members.iter().position(is_it);
    if place.is_none() && !members.is_empty() {
        let names = listed(members.iter().map(|m| m.value.name()));
        section.refuse(p, "primary", &format!("no member; use one of {names}"));
    }
    place
}

/// What the bond's own keys say together.
fn check(p: &mut Problems<'_>, bond: &BondDraft<'_>) {
    let section = &bond.section;
    match section.elements("members") {
        0 => {
            section.refused_empty(p, "members", "no device; name two at least");
        }
        1 => section.refuse(
            p,
            "members",
            "one device is no bond; name another, or write device instead of bond",
        ),
        n if n > MAX_MEMBERS => {
            section.refuse(p, "members", &format!("{n} devices; at most {MAX_MEMBERS}"));
        }
        _ => {}
    }
    let Some(mode) = bond.mode.as_ref().map(|m| m.value) else {
        return;
    };
    let name = name(MODES, mode);
    if !has_primary(mode) {
        let why = format!("mode {name} uses all its members alike; remove it");
        section.refuse(p, "primary", &why);
    }
    if !has_hash(mode) {
        let why = format!("mode {name} does not choose members by flow; remove it");
        section.refuse(p, "hash", &why);
    }
}

/// Whether one member is preferred to the others.
fn has_primary(mode: BondMode) -> bool {
    matches!(mode, BondMode::ActiveBackup | BondMode::Tlb)
}

/// Whether a flow decides which member sends it.
fn has_hash(mode: BondMode) -> bool {
    matches!(mode, BondMode::Xor | BondMode::Lacp)
}

/// The name of `value` in one of the lists above.
fn name<T: Copy + PartialEq>(names: &[(&'static str, T)], value: T) -> &'static str {
    let found = names.iter().find(|(_, other)| *other == value);
    found.map_or("", |(name, _)| name)
}

impl<'t> BondDraft<'t> {
    /// Each member, with the table that it stands in.
    pub(super) fn each(&self) -> impl Iterator<Item = (&Section<'t>, &At<Device>)> {
        self.members.iter().map(|member| (&self.section, member))
    }

    /// The plain data. Only for a draft in which nothing was wrong.
    pub(super) fn finish(&self) -> Bond {
        Bond {
            mode: self.mode.as_ref().expect("missing is reported").value,
            hash: self.hash,
            members: self.members.iter().map(|m| m.value.clone()).collect(),
            primary: self.primary,
            monitor: self.monitor,
        }
    }
}

impl Bond {
    /// The mode as it is written.
    #[must_use]
    pub(crate) fn mode_name(&self) -> &'static str {
        name(MODES, self.mode)
    }

    /// Whether it comes to one member alone.
    #[must_use]
    pub(crate) fn needs_links(&self) -> bool {
        self.mode != BondMode::Broadcast
    }
}

/// What `restart.rs` compares and shows: everything, as it is written.
impl std::fmt::Display for Bond {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let members: Vec<String> = self.members.iter().map(|m| format!("\"{m}\"")).collect();
        write!(f, "mode = \"{}\"", self.mode_name())?;
        write!(f, ", members = [{}]", members.join(", "))?;
        if let Some(primary) = self.primary.and_then(|at| self.members.get(at)) {
            write!(f, ", primary = \"{}\"", primary.name())?;
        }
        if has_hash(self.mode) {
            write!(f, ", hash = \"{}\"", name(HASHES, self.hash))?;
        }
        write!(f, ", monitor = \"{:?}\"", self.monitor)
    }
}

//! The configuration file: TOML in, plain validated data out, or every mistake at once.
//!
//! The way of a file, one room each: [`reader`] walks the TOML and knows where everything
//! stands; [`scalars`] turns one written value into one typed value; [`machine`] and
//! [`services`] read the tables into a [`draft`]; [`check`] and [`places`] compare its tables
//! with each other. What was wrong is collected in a [`Report`], sorted by position; a
//! [`Config`] exists only when nothing was.
//!
//! Every key, with its default, is in `configs/weir.reference.toml`, which a test loads and
//! compares with [`defaults`].
//!
//! Keys of the design that this version does not have yet are refused by name. A key that is
//! accepted is obeyed.

mod bond;
mod check;
mod defaults;
mod draft;
mod forwarding;
mod machine;
mod marks;
mod places;
mod policy;
mod reader;
mod report;
mod restart;
mod scalars;
mod services;
mod snat;
mod states;
mod surprises;
#[cfg(test)]
mod tests;
mod turnover;
mod types;
mod vips;
mod words;

use std::path::Path;

use toml::de::DeTable;

pub(crate) use report::Report;
pub(crate) use restart::restart_needed;
pub(crate) use scalars::duration;
pub(crate) use surprises::surprises;
pub(crate) use types::{
    Config, Cores, Device, Idle, LogFormat, Port, RealServer, Removal, RxChecksum, Service,
    Turnover, VipOwner, Workers,
};

use reader::{Key, Problems, Section};

/// The tables of a file.
const TABLES: &[Key] = &[
    Key::new("workers", "{ count = 2 }"),
    Key::new("port", "[[port]]"),
    Key::new("service", "[[service]]"),
    Key::new("mark", "[[mark]]"),
    Key::new("snat", "[[snat]]"),
    Key::new("access_list", "[[access_list]]"),
    Key::new("timeouts", "{ established = \"900s\" }"),
    Key::new("ipvs", "{ secure_tcp = 1 }"),
    Key::new(
        "defense",
        "{ cookie_secret = \"00112233445566778899aabbccddeeff\" }",
    ),
    Key::new("addresses", "{ vips = \"managed\" }"),
    Key::new("log", "{ level = \"info\" }"),
];

/// What a configuration must fit: the machine that it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Machine {
    /// Its CPUs, by the kernel's numbers, ascending.
    pub cores: Vec<u16>,
}

impl Machine {
    /// The machine that this process runs on: the CPUs that are online.
    ///
    /// Not those of the process's affinity mask: `isolcpus=` takes the very CPUs that workers
    /// should have out of that mask.
    #[must_use]
    pub(crate) fn this() -> Machine {
        let online = std::fs::read_to_string("/sys/devices/system/cpu/online");
        let cores = online.ok().and_then(|list| scalars::cpu_list(list.trim()));
        let cores = cores.unwrap_or_else(|| {
            let allowed = core_affinity::get_core_ids().unwrap_or_default();
            allowed
                .iter()
                .filter_map(|c| c.id.try_into().ok())
                .collect()
        });
        Machine { cores }
    }
}

/// Reads the file at `path` for this machine.
///
/// # Errors
/// Everything that is wrong with the file, in its order; or that it cannot be read.
pub(crate) fn load(path: &Path) -> Result<Config, Report> {
    let name = path.display().to_string();
    let bytes = std::fs::read(path).map_err(|e| Report::unreadable(&name, &e))?;
    match std::str::from_utf8(&bytes) {
        Ok(text) => parse(&name, text, &Machine::this()),
        Err(e) => {
            // The part before the first bad byte is valid, so that it has lines and columns.
            let good = String::from_utf8_lossy(&bytes[..e.valid_up_to()]);
            let mut problems = Problems::new(&name, &good);
            let byte = bytes[e.valid_up_to()];
            let what = format!("byte 0x{byte:02x} is not UTF-8; save the file as UTF-8");
            problems.add(good.len(), what);
            Err(problems.into_report())
        }
    }
}

/// Reads `text` for `machine`; `name` is what the report calls the file.
///
/// # Errors
/// Everything that is wrong with it, in the text's order. Text that is not TOML is reported as
/// such and looked into no further: what its values mean is uncertain.
pub(crate) fn parse(name: &str, text: &str, machine: &Machine) -> Result<Config, Report> {
    let mut problems = Problems::new(name, text);
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        problems.syntax(error);
    }
    if !errors.is_empty() {
        return Err(problems.into_report());
    }
    let p = &mut problems;
    let top = Section::top(p, document.get_ref(), TABLES);
    let marks = marks::marks(p, &top);
    let mut services = services::services(p, &top);
    marks::settle_families(p, &mut services, &marks);
    let mut draft = draft::Draft {
        workers: machine::workers(p, &top, machine),
        ports: machine::ports(p, &top),
        services,
        marks,
        snat: snat::rules(p, &top),
        timeouts: states::timeouts(p, &top),
        rules: states::rules(p, &top),
        addresses: machine::addresses(p, &top),
        log: machine::log(p, &top),
    };
    policy::access::resolve(p, &top, &mut draft.services);
    check::check(p, &draft);
    if problems.is_empty() {
        Ok(draft.finish())
    } else {
        Err(problems.into_report())
    }
}

//! Whom services take: `[service.access]`, and `[[access_list]]`, which services share.
//!
//! Files and lists are read here, and compiled, so that a million networks are no work for the
//! control loop. Services that say the same share one compiled list.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::io::BufRead;
use std::path::Path;
use std::sync::Arc;

use weir_dataplane::defense::access::{Access, Prefix, Rules};

use super::super::defaults::MAX_NETWORKS;
use super::super::machine::named;
use super::super::reader::{Key, Problems, Section};
use super::super::scalars;
use super::super::services::ServiceDraft;
use super::super::words::{grouped, shortened};

pub(in super::super) const ACCESS_LIST: &[Key] = &[
    Key::new("name", "\"office\""),
    Key::new("networks", "[\"192.0.2.0/24\"]"),
    Key::new("file", "\"office.txt\""),
];
pub(in super::super) const ACCESS: &[Key] = &[
    Key::new("allow", "[\"10.0.0.0/8\"]"),
    Key::new("deny", "[\"10.7.0.0/16\"]"),
    Key::new("allow_file", "\"allow.txt\""),
    Key::new("deny_file", "\"deny.txt\""),
    Key::new("close_denied", "false"),
];

/// Named lists.
type Lists = HashMap<String, Vec<Prefix>>;

/// What one service wrote: the same again is the same list.
#[derive(PartialEq, Eq, Hash)]
struct Written {
    allow: Vec<String>,
    deny: Vec<String>,
    files: [Option<String>; 2],
    closes: bool,
}

/// Reads the lists, and gives each service what it asks for.
pub(in super::super) fn resolve(
    p: &mut Problems<'_>,
    top: &Section<'_>,
    services: &mut [ServiceDraft<'_>],
) {
    let lists = lists(p, top);
    let mut known: HashMap<Written, Option<Arc<Access>>> = HashMap::new();
    for service in services {
        let section = service.section.table(p, "access", ACCESS);
        if section.is_absent() {
            continue;
        }
        let texts = |p: &mut Problems<'_>, key| {
            let texts = section.texts(p, key, |text| Ok(text.to_owned()));
            let texts = texts.unwrap_or_default().into_iter();
            texts.map(|text| text.value).collect::<Vec<String>>()
        };
        let file = |p: &mut Problems<'_>, key| section.text(p, key).map(|f| f.value.to_owned());
        let closes = section.boolean(p, "close_denied").is_some_and(|b| b.value);
        let written = Written {
            allow: texts(p, "allow"),
            deny: texts(p, "deny"),
            files: [file(p, "allow_file"), file(p, "deny_file")],
            closes,
        };
        service.policy.access = match known.get(&written) {
            Some(same) => same.clone(),
            None => {
                let access = access(p, &section, &lists, &written).map(Arc::new);
                known.insert(written, access.clone());
                access
            }
        };
    }
}

/// One service's list, compiled.
fn access(
    p: &mut Problems<'_>,
    section: &Section<'_>,
    lists: &Lists,
    written: &Written,
) -> Option<Access> {
    let empty = "an empty list; write networks, or remove it";
    for key in ["allow", "deny"] {
        section.refused_empty(p, key, empty);
    }
    let allows = !written.allow.is_empty() || written.files[0].is_some();
    if !allows && written.deny.is_empty() && written.files[1].is_none() {
        return None;
    }
    let mut rules = Rules::default();
    for (key, refused) in [("allow", false), ("deny", true)] {
        let one = |text: &str| match (lists.get(text), text.parse::<Prefix>()) {
            (Some(list), _) => Ok((list.as_slice(), None)),
            (None, Ok(prefix)) => Ok((&[][..], Some(prefix))),
            (None, Err(why)) if lists.is_empty() => Err(why),
            (None, Err(why)) => Err(format!("{why}, or the name of an [[access_list]]")),
        };
        for said in section.texts(p, key, one).unwrap_or_default() {
            let (list, own) = said.value;
            for prefix in list.iter().copied().chain(own) {
                rules.add(prefix, refused);
            }
        }
        for prefix in file(p, section, &format!("{key}_file"), MAX_NETWORKS) {
            rules.add(prefix, refused);
        }
    }
    let prefixes = rules.len();
    if prefixes > MAX_NETWORKS {
        let why = format!(
            "{} networks, lists and files included; a service takes at most {}",
            grouped_len(prefixes),
            grouped_len(MAX_NETWORKS)
        );
        section.problem(p, section.at, &why);
        return None;
    }
    Some(Access {
        denied: rules.compile(allows),
        prefixes,
        closes: written.closes,
    })
}

fn lists(p: &mut Problems<'_>, top: &Section<'_>) -> Lists {
    let mut lists = Lists::new();
    let what = |n, table: &toml::de::DeTable<'_>| named("access_list", n, table);
    for section in top.tables(p, "access_list", ACCESS_LIST, what) {
        let Some(name) = section.parsed(p, "name", scalars::label) else {
            if !section.has("name") {
                section.missing(p, "name");
            }
            continue;
        };
        if name.value.parse::<Prefix>().is_ok() {
            section.refuse(
                p,
                "name",
                "a network; use a name that is none, like \"office\"",
            );
            continue;
        }
        if !section.has("networks") && !section.has("file") {
            section.missing(p, "networks");
        }
        let networks = section.texts(p, "networks", str::parse::<Prefix>);
        let networks = networks.unwrap_or_default().into_iter();
        let mut all: Vec<Prefix> = networks.map(|n| n.value).collect();
        all.extend(file(p, &section, "file", MAX_NETWORKS));
        if lists.insert(name.value, all).is_some() {
            section.refuse(p, "name", "the name of another list; give each its own");
        }
    }
    lists
}

/// The networks of the file that `key` names, one a line; what follows a '#' is a remark.
fn file(p: &mut Problems<'_>, section: &Section<'_>, key: &str, most: usize) -> Vec<Prefix> {
    let Some(name) = section.text(p, key) else {
        return Vec::new();
    };
    match read(&p.beside(Path::new(name.value)), most) {
        Ok(prefixes) => prefixes,
        Err(why) => {
            section.refuse(p, key, &why);
            Vec::new()
        }
    }
}

fn read(path: &Path, most: usize) -> Result<Vec<Prefix>, String> {
    let unreadable = |e: &dyn std::fmt::Display| format!("cannot be read: {e}");
    let file = std::fs::File::open(path).map_err(|e| unreadable(&e))?;
    let mut prefixes = Vec::new();
    for (line, text) in (1..).zip(std::io::BufReader::new(file).lines()) {
        let text = text.map_err(|e| unreadable(&e))?;
        let text = text.split('#').next().unwrap_or_default().trim();
        if text.is_empty() {
            continue;
        }
        let prefix = shortened(text).parse();
        prefixes.push(prefix.map_err(|why: String| format!("line {line}: {why}"))?);
        if prefixes.len() > most {
            let most = grouped_len(most);
            return Err(format!(
                "more than {most} networks; a service takes at most so many"
            ));
        }
    }
    Ok(prefixes)
}

fn grouped_len(len: usize) -> String {
    grouped(u32::try_from(len).unwrap_or(u32::MAX))
}

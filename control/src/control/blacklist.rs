//! `weir blacklist`: who is shut out, until when, and what of it the workers hold.
//!
//! Entries are kept here and forgotten when their time is up. Every change has the addresses
//! compiled anew, beside the control loop; changes that come meanwhile go into the next one. An
//! answer is given when every worker holds what was asked for.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use weir_dataplane::ServiceId;
use weir_dataplane::defense::access::{Prefix, Rules};
use weir_dataplane::defense::blacklist::Blacklist;

use super::{Control, Done};
use crate::api::documents::{BlacklistEntry, Blacklisted};
use crate::api::{BlacklistRequest, Problem};

/// Entries that fit: compiled in some ten milliseconds.
pub(super) const MOST: usize = 100_000;

/// A network, and the one service that it is shut out of; of all without.
type Who = (Prefix, Option<String>);

/// Where the answer goes, and what it is.
type Owed = (
    oneshot::Sender<Result<Blacklisted, Problem>>,
    Vec<BlacklistEntry>,
);

/// The entries, and how far they have come.
#[derive(Debug)]
pub(super) struct BlacklistBook {
    entries: BTreeMap<Who, Entry>,
    /// What was compiled last.
    pub(super) compiled: Arc<Blacklist>,
    /// The entries have changed since.
    stale: bool,
    /// Some are being compiled.
    busy: bool,
    /// Whoever waits for workers to hold what is here.
    owed: Vec<Owed>,
    /// When the next entry's time is up.
    next_end: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    added: Instant,
    ends: Option<Instant>,
}

impl Default for BlacklistBook {
    fn default() -> Self {
        BlacklistBook {
            entries: BTreeMap::new(),
            compiled: Blacklist::empty(),
            stale: false,
            busy: false,
            owed: Vec::new(),
            next_end: None,
        }
    }
}

impl BlacklistBook {
    /// Adds an entry, or gives one that is there another end.
    fn add(&mut self, who: Who, lasts: Option<Duration>, now: Instant) -> Result<(), Problem> {
        if self.entries.len() >= MOST && !self.entries.contains_key(&who) {
            return Err(Problem::Refused(format!(
                "the blacklist is full ({MOST} entries); longer lists go into an access list's file \
                 ([service.access] deny_file)"
            )));
        }
        let ends = lasts.map(|lasts| now + lasts);
        let added = self.entries.get(&who).map_or(now, |known| known.added);
        self.entries.insert(who, Entry { added, ends });
        self.stale = true;
        self.note_next_end();
        Ok(())
    }

    fn remove(&mut self, who: &Who, now: Instant) -> Result<BlacklistEntry, Problem> {
        let Some(entry) = self.entries.remove(who) else {
            let (prefix, of) = (who.0, of(who));
            return Err(Problem::Refused(format!(
                "{prefix} is not on the blacklist{of}; `weir blacklist list` shows what is"
            )));
        };
        self.stale = true;
        self.note_next_end();
        Ok(shown(who, entry, now))
    }

    /// Forgets entries whose time is up; whether there was any.
    fn expire(&mut self, now: Instant) -> bool {
        if self.next_end.is_none_or(|end| end > now) {
            return false;
        }
        self.entries
            .retain(|_, entry| entry.ends.is_none_or(|ends| ends > now));
        self.stale = true;
        self.note_next_end();
        true
    }

    fn note_next_end(&mut self) {
        self.next_end = self.entries.values().filter_map(|entry| entry.ends).min();
    }

    fn entries(&self, now: Instant) -> Vec<BlacklistEntry> {
        let entries = self.entries.iter();
        entries
            .map(|(who, entry)| shown(who, *entry, now))
            .collect()
    }

    /// Services' numbers may have changed: those entries that name one are looked at again.
    pub(super) fn services_changed(&mut self) {
        self.stale |= self.entries.keys().any(|(_, service)| service.is_some());
    }

    /// What is to be compiled now, with the numbers of services; `None` while that is done, or
    /// when nothing has changed.
    fn work(&mut self, id_of: impl Fn(&str) -> Option<ServiceId>) -> Option<Work> {
        if self.busy || !std::mem::take(&mut self.stale) {
            return None;
        }
        self.busy = true;
        let entries = self.entries.keys();
        let known = entries.filter_map(|(prefix, service)| match service {
            None => Some((None, *prefix)),
            Some(name) => Some((Some(id_of(name)?), *prefix)),
        });
        Some(Work(known.collect()))
    }
}

/// Networks, and the services that they are shut out of.
struct Work(Vec<(Option<ServiceId>, Prefix)>);

impl Work {
    fn compile(mut self) -> Blacklist {
        self.0.sort_unstable_by_key(|(service, _)| *service);
        let mut blacklist = Blacklist::default();
        for of_one in self.0.chunk_by(|a, b| a.0 == b.0) {
            let mut rules = Rules::default();
            of_one
                .iter()
                .for_each(|(_, prefix)| rules.add(*prefix, true));
            let denied = rules.compile(false);
            match of_one.first().and_then(|(service, _)| *service) {
                None => blacklist.everywhere = denied,
                Some(service) => blacklist.services.push((service, denied)),
            }
        }
        blacklist
    }
}

fn shown((prefix, service): &Who, entry: Entry, now: Instant) -> BlacklistEntry {
    let seconds = |d: Duration| d.as_millis().div_ceil(1000) as u64;
    BlacklistEntry {
        prefix: prefix.to_string(),
        service: service.clone(),
        age_seconds: now.duration_since(entry.added).as_secs(),
        expires_in_seconds: entry
            .ends
            .map(|ends| seconds(ends.saturating_duration_since(now))),
    }
}

/// " of service ...", for people.
fn of((_, service): &Who) -> String {
    match service {
        Some(service) => format!(" of service {service:?}"),
        None => String::new(),
    }
}

impl Control {
    /// Does what was asked; the answer comes when every worker holds it.
    pub(super) fn blacklist_asked(
        &mut self,
        wanted: BlacklistRequest,
        back: oneshot::Sender<Result<Blacklisted, Problem>>,
    ) {
        let now = Instant::now();
        let done = match wanted {
            BlacklistRequest::List => Ok(self.blacklist.entries(now)),
            BlacklistRequest::Add {
                prefix,
                service,
                lasts,
            } => self.blacklist_add((prefix, service), lasts, now),
            BlacklistRequest::Remove { prefix, service } => {
                let who = (prefix, service);
                let removed = self.blacklist.remove(&who, now);
                removed.map(|removed| {
                    tracing::info!("blacklist: {prefix}{} removed", of(&who));
                    vec![removed]
                })
            }
        };
        match done {
            Ok(entries) => self.blacklist.owed.push((back, entries)),
            Err(problem) => drop(back.send(Err(problem))), // who asked may have gone
        }
    }

    fn blacklist_add(
        &mut self,
        who: Who,
        lasts: Option<Duration>,
        now: Instant,
    ) -> Result<Vec<BlacklistEntry>, Problem> {
        if let Some(name) = &who.1
            && self.service_id(name).is_none()
        {
            return Err(Problem::BadRequest(format!(
                "no service is called {name:?}; `weir services` shows their names"
            )));
        }
        self.blacklist.add(who.clone(), lasts, now)?;
        let until = match lasts {
            Some(lasts) => format!("for {} s", lasts.as_secs()),
            None => "until it is removed".to_owned(),
        };
        tracing::info!("blacklist: {}{} added {until}", who.0, of(&who));
        let entry = self.blacklist.entries.get(&who).copied();
        Ok(entry
            .map(|entry| shown(&who, entry, now))
            .into_iter()
            .collect())
    }

    fn service_id(&self, name: &str) -> Option<ServiceId> {
        let mut standing = self.model.services().filter(|entry| !entry.removed);
        let found = standing.find(|entry| *entry.name == *name);
        found.map(|entry| entry.id)
    }

    /// The blacklist, a little on: what has run out goes, what has changed is compiled, what all
    /// workers hold is answered.
    pub(super) fn turn_blacklist(&mut self) {
        if self.blacklist.expire(Instant::now()) {
            tracing::debug!("blacklist: entries have run out");
        }
        let model = &self.model;
        let ids = || {
            let standing = model.services().filter(|entry| !entry.removed);
            let ids = standing.map(|entry| (entry.name.clone(), entry.id));
            ids.collect::<std::collections::HashMap<Arc<str>, ServiceId>>()
        };
        if self.blacklist.stale && !self.blacklist.busy {
            let ids = ids();
            if let Some(work) = self.blacklist.work(|name| ids.get(name).copied()) {
                let done = self.done.clone();
                tokio::task::spawn_blocking(move || {
                    let compiled = Arc::new(work.compile());
                    let _ = done.blocking_send(Done::Blacklist(compiled)); // the loop may have ended
                });
            }
        }
        let book = &mut self.blacklist;
        let everywhere = !book.busy && !book.stale;
        if everywhere
            && !book.owed.is_empty()
            && self.links.iter().all(|link| link.holds_blacklist())
        {
            let (bytes, all) = (book.compiled.bytes(), book.entries.len());
            for (back, entries) in std::mem::take(&mut book.owed) {
                let answer = Blacklisted {
                    entries,
                    all,
                    bytes,
                };
                let _ = back.send(Ok(answer)); // who asked may have gone
            }
        }
    }

    /// Whether somebody waits for the workers to hold the blacklist.
    pub(super) fn owes_blacklist(&self) -> bool {
        !self.blacklist.owed.is_empty() || self.blacklist.busy || self.blacklist.stale
    }

    /// Compiled: to the workers with it.
    pub(super) fn blacklist_compiled(&mut self, compiled: Arc<Blacklist>) {
        self.blacklist.busy = false;
        self.blacklist.compiled = Arc::clone(&compiled);
        for link in &mut self.links {
            link.post_blacklist(Arc::clone(&compiled));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(prefix: &str, service: Option<&str>) -> Who {
        (prefix.parse().unwrap(), service.map(str::to_owned))
    }

    fn names(book: &BlacklistBook, now: Instant) -> Vec<String> {
        let entries = book.entries(now).into_iter();
        entries.map(|entry| entry.prefix).collect()
    }

    #[test]
    fn entries_come_last_and_go() {
        let (mut book, now) = (BlacklistBook::default(), Instant::now());
        let seconds = Duration::from_secs;
        book.add(who("192.0.2.0/24", None), Some(seconds(10)), now)
            .unwrap();
        book.add(who("192.0.2.0/24", Some("web")), None, now)
            .unwrap();
        book.add(who("2001:db8::/32", None), Some(seconds(5)), now)
            .unwrap();
        let of = |name: &str| (name == "web").then_some(ServiceId(7));
        let compiled = book.work(of).unwrap().compile();
        let denies = |b: &Blacklist, service, client: &str| {
            b.denies(ServiceId(service), client.parse().unwrap())
        };
        assert!(denies(&compiled, 1, "192.0.2.9") && denies(&compiled, 1, "2001:db8::1"));
        assert!(!denies(&compiled, 7, "198.51.100.1"));
        assert!(book.work(of).is_none(), "one at a time, and nothing is new");
        book.busy = false;

        assert!(!book.expire(now + seconds(4)));
        assert!(book.expire(now + seconds(5)));
        assert_eq!(names(&book, now), ["192.0.2.0/24", "192.0.2.0/24"]);
        let left = &book.entries(now + Duration::from_millis(9_100))[0];
        assert_eq!((left.expires_in_seconds, left.age_seconds), (Some(1), 9));
        // Longer, from now on.
        book.add(
            who("192.0.2.0/24", None),
            Some(seconds(10)),
            now + seconds(9),
        )
        .unwrap();
        assert!(!book.expire(now + seconds(18)));
        assert!(book.expire(now + seconds(19)));
        let compiled = book.work(of).unwrap().compile();
        assert!(!denies(&compiled, 1, "192.0.2.9") && denies(&compiled, 7, "192.0.2.9"));
        book.busy = false;

        let nobody = book.remove(&who("192.0.2.0/24", None), now).unwrap_err();
        assert_eq!(
            nobody.to_string(),
            "192.0.2.0/24 is not on the blacklist; `weir blacklist list` shows what is"
        );
        let removed = book.remove(&who("192.0.2.0/24", Some("web")), now).unwrap();
        assert_eq!(removed.expires_in_seconds, None);
        assert!(book.work(of).unwrap().compile().is_empty());
    }

    /// What names a service that is gone waits for it to come back.
    #[test]
    fn services_come_and_go() {
        let (mut book, now) = (BlacklistBook::default(), Instant::now());
        book.services_changed();
        assert!(book.work(|_| None).is_none(), "no entry names one");
        book.add(who("192.0.2.0/24", Some("web")), None, now)
            .unwrap();
        assert!(book.work(|_| None).unwrap().compile().is_empty());
        book.busy = false;
        book.services_changed();
        let compiled = book.work(|_| Some(ServiceId(3))).unwrap().compile();
        assert_eq!(compiled.services[0].0, ServiceId(3));
    }

    #[test]
    fn a_full_blacklist_says_where_longer_lists_go() {
        let (mut book, now) = (BlacklistBook::default(), Instant::now());
        for n in 0..MOST as u32 {
            let addr = std::net::IpAddr::V4(n.into());
            book.entries.insert(
                (Prefix { addr, len: 32 }, None),
                Entry {
                    added: now,
                    ends: None,
                },
            );
        }
        let full = book.add(who("192.0.2.0/24", None), None, now).unwrap_err();
        assert!(
            full.to_string()
                .starts_with("the blacklist is full (100000 entries)"),
            "{full}"
        );
        book.add(who("0.0.0.7", None), None, now)
            .expect("it is there already");
    }
}

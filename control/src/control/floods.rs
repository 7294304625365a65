//! Which services' automatic SYN proxies answer, as workers say: logged when the first of a
//! service's workers begins to, and when the last has ceased.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::time::{Duration, Instant};

use weir_dataplane::{CoreId, ServiceId};

/// A worker that answers says so every second; one that has not for so long no longer does: its
/// last word was lost.
const SILENCE: Duration = Duration::from_secs(5);

/// The services under attack.
#[derive(Debug, Default)]
pub(super) struct Floods {
    floods: HashMap<ServiceId, Flood>,
}

#[derive(Debug)]
struct Flood {
    since: Instant,
    /// When each worker said it last.
    workers: HashMap<CoreId, Instant>,
}

/// What there is to tell an operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    /// Clients of the service prove themselves from now on.
    Began(ServiceId),
    /// They no longer do, after so long.
    Ended(ServiceId, Duration),
}

impl Floods {
    /// A worker says whether it answers for a service.
    pub(super) fn heard(
        &mut self,
        worker: CoreId,
        service: ServiceId,
        on: bool,
        now: Instant,
    ) -> Option<News> {
        if on {
            let began = !self.floods.contains_key(&service);
            let flood = self.floods.entry(service).or_insert_with(|| Flood {
                since: now,
                workers: HashMap::new(),
            });
            flood.workers.insert(worker, now);
            return began.then_some(News::Began(service));
        }
        let flood = self.floods.get_mut(&service)?;
        flood.workers.remove(&worker);
        if !flood.workers.is_empty() {
            return None;
        }
        let since = self.floods.remove(&service)?.since;
        Some(News::Ended(service, now - since))
    }

    /// Forgets workers that have fallen silent.
    pub(super) fn look(&mut self, now: Instant) -> Vec<News> {
        let mut ended = Vec::new();
        self.floods.retain(|service, flood| {
            flood.workers.retain(|_, said| now - *said < SILENCE);
            let goes_on = !flood.workers.is_empty();
            if !goes_on {
                ended.push(News::Ended(*service, now - flood.since));
            }
            goes_on
        });
        ended
    }

    /// Whether clients of the service must prove themselves now.
    pub(super) fn concern(&self, service: ServiceId) -> bool {
        self.floods.contains_key(&service)
    }
}

/// Tells the operator; `name` is the service's.
pub(super) fn log(news: News, name: &str) {
    match news {
        News::Began(_) => tracing::warn!(
            service = name,
            "SYN flood: many connections are half-open; clients prove themselves by cookies from \
             now on (syn_proxy)"
        ),
        News::Ended(_, after) => tracing::info!(
            service = name,
            seconds = after.as_secs(),
            "the SYN flood is over; connections open at once again (syn_proxy)"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_worker_begins_and_the_last_ends_it() {
        let (mut floods, start) = (Floods::default(), Instant::now());
        let at = |s| start + Duration::from_secs(s);
        let web = ServiceId(3);
        assert_eq!(
            floods.heard(CoreId(0), web, true, at(0)),
            Some(News::Began(web))
        );
        assert_eq!(floods.heard(CoreId(1), web, true, at(1)), None);
        assert_eq!(floods.heard(CoreId(0), web, true, at(1)), None);
        assert!(floods.concern(web) && !floods.concern(ServiceId(0)));
        assert_eq!(floods.heard(CoreId(0), web, false, at(2)), None);
        assert_eq!(floods.heard(CoreId(0), web, false, at(2)), None);
        let ended = News::Ended(web, Duration::from_secs(9));
        assert_eq!(floods.heard(CoreId(1), web, false, at(9)), Some(ended));
        assert_eq!(floods.heard(CoreId(1), web, false, at(9)), None);

        // A last word that was lost.
        floods.heard(CoreId(0), web, true, at(20));
        assert_eq!(floods.look(at(24)), []);
        let ended = News::Ended(web, Duration::from_secs(5));
        assert_eq!(floods.look(at(25)), [ended]);
        assert!(!floods.concern(web));
    }
}

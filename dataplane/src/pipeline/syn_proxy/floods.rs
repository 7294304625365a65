//! Half-open connections of services whose SYN proxy is automatic: they are counted from their SYN
//! until they are established or gone, and once a second each service is judged by that
//! (`defense/syn_proxy.rs` says when cookies begin and end).
#![forbid(unsafe_code)]

use super::SynProxies;
use crate::command::Event;
use crate::conn::entry::Flags;
use crate::conn::state::State;
use crate::conn::{Conn, ConnId};
use crate::defense::syn_proxy::Mode;
use crate::io::PortQueue;
use crate::packet::Key;
use crate::pipeline::family::Family;
use crate::service::Snapshot;
use crate::types::{Proto, ServiceId, Tick};
use crate::worker::Worker;

impl<F> SynProxies<F> {
    /// A half-open connection that was counted is so no more.
    #[cold]
    fn settled(&mut self, service: Option<ServiceId>) {
        let watch = service.and_then(|id| self.watches.get_mut(id.0 as usize));
        if let Some(watch) = watch {
            watch.settled();
        }
    }

    /// A connection is gone: it is not half-open any more.
    #[inline]
    pub(crate) fn gone<K: Key>(&mut self, conn: &Conn<K>, snapshot: &Snapshot) {
        if conn.flags().has(Flags::HALF_OPEN) {
            self.settled(snapshot.server(conn.server_id()).map(|s| s.service));
        }
    }
}

impl<Q: PortQueue> Worker<Q> {
    /// Counts a connection that was opened without proof, for services that watch for floods.
    #[inline(always)]
    pub(in crate::pipeline) fn note_opened<K: Family>(&mut self, id: ConnId) {
        if self.proxies.automatic {
            self.count_half_open::<K>(id);
        }
    }

    #[inline(never)]
    fn count_half_open<K: Family>(&mut self, id: ConnId) {
        let conn = K::side_mut(&mut self.sides).conns.get_mut(id);
        let service = self.snapshot.server(conn.server_id());
        let service = service.and_then(|s| self.snapshot.service(s.service));
        let Some(service) = service.filter(|s| s.policy.syn_proxy.mode == Mode::Auto) else {
            return;
        };
        if let Some(watch) = self.proxies.watches.get_mut(service.id.0 as usize)
            && conn.proto() == Proto::Tcp
            && conn.state().is_half_open()
        {
            watch.opened();
            conn.set_half_open(true);
        }
    }

    /// A connection that was counted as half-open has left that state.
    #[cold]
    pub(in crate::pipeline) fn settle<K: Family>(&mut self, id: ConnId) {
        let conn = K::side_mut(&mut self.sides).conns.get_mut(id);
        conn.set_half_open(false);
        let server = self.snapshot.server(conn.server_id());
        self.proxies.settled(server.map(|s| s.service));
    }

    /// Once a second, judges whether services need cookies still, and tells control.
    #[inline]
    pub(crate) fn judge_floods(&mut self, now: Tick) {
        if self.proxies.automatic && now.since(self.proxies.judged) >= Tick::seconds(1) {
            self.judge(now);
        }
    }

    #[cold]
    fn judge(&mut self, now: Tick) {
        self.proxies.judged = now;
        for id in (0..self.proxies.watches.len() as u32).map(ServiceId) {
            let service = self.snapshot.service(id);
            let Some(service) = service.filter(|s| s.policy.syn_proxy.mode == Mode::Auto) else {
                continue;
            };
            let limit = self.proxies.limit(service);
            let syn_recv = self.snapshot.timeouts.of(id).of(State::SynRecv);
            let watch = &mut self.proxies.watches[id.0 as usize];
            let before = watch.on;
            watch.each_second(limit, syn_recv);
            let on = watch.on;
            if before || on {
                // Said again each second while it is on: one that is lost matters little.
                self.tell(Event::SynProxy { service: id, on });
            }
        }
    }
}

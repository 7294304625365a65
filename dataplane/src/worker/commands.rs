//! What control says and hears: snapshots, routes, neighbours, questions, the end.
#![forbid(unsafe_code)]

use std::sync::Arc;

use super::Worker;
use crate::command::{Command, ConnPage, ConnView, Event, PortUpdate};
use crate::conn::Conn;
use crate::counters::DropReason;
use crate::helper::Helper;
use crate::io::{Frame, PortQueue};
use crate::packet::{Key, eth};
use crate::pipeline::DATAGRAMS;
use crate::route::{Hop, NeighbourUpdate, OwnEnd};
use crate::sched::Memory;
use crate::service::{Candidate, Service, Snapshot};
use crate::types::Tick;

/// Commands taken in one turn: an operator's question never delays packets for long.
const COMMANDS_A_TURN: usize = 4;
/// What a redirect lasts longer than any connection without packets.
const REDIRECT_GRACE: u32 = Tick::seconds(64);

impl<Q: PortQueue> Worker<Q> {
    pub(super) fn take_commands(&mut self, now: Tick) -> usize {
        let mut taken = 0;
        // A command answers with one event at most: take none that could not be answered.
        while taken < COMMANDS_A_TURN && self.events.slots() > COMMANDS_A_TURN {
            let Ok(command) = self.commands.pop() else {
                break;
            };
            taken += 1;
            match command {
                Command::Snapshot(snapshot) => {
                    self.defense.look_soon(now);
                    let old = self.use_snapshot(snapshot);
                    self.tell(Event::RetiredSnapshot(old));
                }
                Command::Fib(fib) => {
                    let old = std::mem::replace(&mut self.fib, fib);
                    self.servers.forget_ways();
                    self.tell(Event::RetiredFib(old));
                }
                Command::Blacklist(blacklist) => {
                    let old = self.defense.use_blacklist(blacklist);
                    self.tell(Event::RetiredBlacklist(old));
                }
                Command::Neighbour(update) => self.update_neighbour(update),
                Command::Port(update) => self.update_port(update),
                Command::ListConns(mut page) => {
                    self.fill(&mut page, now);
                    self.tell(Event::Conns(page));
                }
                Command::ListTemplates(mut page) => {
                    self.list_templates(&mut page);
                    self.tell(Event::Templates(page));
                }
                Command::Stop => self.stop(now),
            }
        }
        taken
    }

    /// Says something to control; lost when the ring is full, so only what will be said again
    /// may come without a free slot seen before.
    pub(crate) fn tell(&mut self, event: Event) {
        let _ = self.events.push(event);
    }

    pub(super) fn use_snapshot(&mut self, snapshot: Arc<Snapshot>) -> Arc<Snapshot> {
        self.remember_services(&snapshot);
        let servers = snapshot
            .servers()
            .map(|s| s.id.0 as usize + 1)
            .max()
            .unwrap_or(0);
        self.servers
            .follow(&snapshot, servers, &self.counters.servers);
        self.redirect_ticks = snapshot.timeouts.longest() + REDIRECT_GRACE;
        self.templates.silence = self.redirect_ticks;
        let counted = snapshot.services().filter(|s| s.scheduler.kind().counts());
        let counted = counted.flat_map(|s| s.servers.iter().map(|c| c.id));
        let guarded = || snapshot.servers().filter(|s| s.policy.thresholds.are_on());
        let watched = counted.chain(guarded().map(|s| s.id));
        self.loads.watch(servers, watched);
        self.loads
            .guard(guarded().map(|s| (s.id, s.policy.thresholds)));
        self.limits.follow(&snapshot);
        self.note_standings(&snapshot, servers);
        self.farewells.follow(&snapshot, servers);
        if closes_more(&self.snapshot, &snapshot) {
            self.defense.weed();
        }
        self.proxies.follow(&self.snapshot, &snapshot);
        let helps = |s: &Service| s.policy.helper != Helper::none;
        self.expected.provide(snapshot.services().any(helps));
        std::mem::replace(&mut self.snapshot, snapshot)
    }

    /// Has schedulers take note of servers that came, went or changed their weight.
    fn remember_services(&mut self, new: &Snapshot) {
        let (me, workers) = (self.steer.me(), self.steer.workers());
        for service in new.services() {
            let id = service.id.0 as usize;
            while self.memories.len() <= id {
                let seed = self.dice_seed ^ (self.memories.len() as u64) << 32 ^ u64::from(me.0);
                self.memories.push(Memory::new(me, workers, seed));
            }
            let memory = &mut self.memories[id];
            let old = self.snapshot.service(service.id);
            let before: &[Candidate] = match old.filter(|old| old.key == service.key) {
                Some(old) if old.chooses_like(service) => continue,
                Some(old) => &old.servers,
                None => {
                    memory.forget();
                    &[]
                }
            };
            memory.adopt(before, &service.scheduler, &service.servers);
        }
    }

    fn update_neighbour(&mut self, update: NeighbourUpdate) {
        self.neighbours.update(update);
        self.servers.forget_neighbour(update.id);
        let Some(mac) = update.mac else { return };
        let hop = Hop {
            port: update.port,
            addr: update.addr,
        };
        while let Some(parked) = self.parking.release(hop) {
            let mut frame = parked.frame;
            let lane = usize::from(hop.port.0);
            let src = self.lanes[lane].port.mac;
            eth::set_macs(frame.bytes_mut(), mac, src);
            self.transmit(lane, frame);
        }
        self.note_held();
    }

    fn update_port(&mut self, update: PortUpdate) {
        if let Some(lane) = self.lanes.get_mut(usize::from(update.port.0)) {
            lane.port.mac = update.mac;
            lane.port.mtu = update.mtu;
        }
        let (mac, mtu) = (update.mac, update.mtu);
        self.neighbours
            .set_own_end(update.port, OwnEnd { mac, mtu });
        self.servers.forget_ways();
    }

    /// Fills a page of connections, IPv4 first: the cursor's highest bit says IPv6.
    fn fill(&self, page: &mut ConnPage, now: Tick) {
        page.core = self.steer.me();
        let (sides, found) = (&self.sides, &mut page.found);
        let mut next = Some(page.cursor);
        if page.cursor & IPV6_PAGE == 0 {
            let (at, conns) = (page.cursor, &sides.v4.conns);
            let left = conns.page(at, page.scan, |_, c| list(found, c, now));
            next = Some(left.unwrap_or(IPV6_PAGE));
        }
        if let Some(cursor) = next.filter(|cursor| cursor & IPV6_PAGE != 0) {
            let (at, conns) = (cursor & !IPV6_PAGE, &sides.v6.conns);
            let left = conns.page(at, page.scan, |_, c| list(found, c, now));
            next = left.map(|at| at | IPV6_PAGE);
        }
        page.done = next.is_none();
        page.cursor = next.unwrap_or(page.cursor);
    }

    /// Sends what is in hand and drops what waits for a neighbour.
    fn stop(&mut self, now: Tick) {
        while let Some(parked) = self.parking.expire(now.after(Tick::seconds(3600))) {
            self.counters.dropped(DropReason::NeighbourUnresolved);
            drop(parked);
        }
        self.drop_held();
        let counters = &self.counters;
        let mut lost = |reason| counters.dropped(reason);
        let later = now.after(Tick::seconds(3600));
        self.fragments
            .expire(later, usize::from(DATAGRAMS), &mut lost);
        self.note_held();
        self.stopped = true;
    }
}

/// Whether a service has another access list that standing connections are measured by.
fn closes_more(old: &Snapshot, new: &Snapshot) -> bool {
    new.services().any(|service| {
        let access = service.policy.access.as_deref();
        let before = old.service(service.id);
        let before = before.and_then(|service| service.policy.access.as_deref());
        access.is_some_and(|access| access.closes && before != Some(access))
    })
}

/// In a page's cursor: the IPv4 connections are through.
const IPV6_PAGE: u32 = 1 << 31;

/// Adds a connection to a page; false when it is full.
fn list<K: Key>(found: &mut Vec<ConnView>, c: &Conn<K>, now: Tick) -> bool {
    if found.len() == found.capacity() {
        return false;
    }
    found.push(ConnView {
        proto: c.proto(),
        client: c.client(),
        virtual_: c.virtual_(),
        local: c.local(),
        server: c.server(),
        server_id: c.server_id(),
        state: c.state(),
        expires: c.deadline().since(now),
        age: now.since(c.created()),
        in_packets: c.in_packets,
    });
    true
}

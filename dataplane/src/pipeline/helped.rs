//! Control connections that a helper reads (FTP): what they announce, and their numbers.
//!
//! ```text
//!             the line says                      the other side is told       expected
//!  passive    227, 229: RIP:port                 VIP:port                     client -> VIP:port
//!  active     PORT, EPRT: client:port, NAT       as it is                     server -> client:port
//!                                      FULL-NAT  LIP:lport                    server -> LIP:lport
//! ```
//! The port that clients are told is the server's own, unless the client expects another
//! connection there or a service has it; then the next one.
//!
//! Who may announce what: a client its own address only, or the server would connect to whom it
//! names (the FTP bounce attack; counted, and the command is spoilt so that the server refuses it),
//! and neither side ports below 1024. A server that announces an address which is not its own was
//! told to (`pasv_address`, `MasqueradeAddress`): that stays, and the port is expected.
#![forbid(unsafe_code)]

use std::net::{IpAddr, SocketAddr};

use super::family::Family;
use crate::conn::side::SideId;
use crate::conn::state::Direction;
use crate::conn::templates::Heard;
use crate::conn::{ConnId, Hit};
use crate::forward::ForwardMode;
use crate::forward::carrier::{ClientAddress, stream::number};
use crate::helper::expected::{Expected, Wanted, bits};
use crate::helper::ftp::{self, Announcement, Side, Words};
use crate::helper::{Helper, shift};
use crate::io::{Frame, PortQueue};
use crate::packet::tcp::flags::{ACK, RST, SYN};
use crate::packet::{Flow, Key6, tcp};
use crate::steer::Message;
use crate::types::{CoreId, Proto, Tick};
use crate::worker::Worker;

/// Below it neither side may announce a port: services live there.
const FIRST_PORT: u16 = 1024;
/// Where active data connections come from where the service's own port has none below it.
const DATA_PORT: u16 = 20;
/// Ports tried where a client expects another connection on the server's own.
const PORTS: u16 = 16;
/// Ports tried, for each worker, until one leads to the wanted one.
const HOMES: u16 = 8;

impl<Q: PortQueue> Worker<Q> {
    /// Whether a new connection is a data connection, so nothing else is to be done to it; has
    /// those of services with a helper read from now on. `says`: the first packet's flags.
    pub(super) fn begin_helping<K: Family>(&mut self, id: ConnId, says: u8, now: Tick) -> bool {
        let conn = K::side(&self.sides).conns.get(id);
        if conn.proto() != Proto::Tcp || says & (SYN | ACK) != SYN {
            return false;
        }
        let key = conn.key(Direction::Inbound).widened();
        if !self.expected.is_empty()
            && let Some(expected) = self.expected.get(&Wanted::by(&key), now)
            && expected.from_port == conn.client().port()
        {
            let control = expected.control;
            self.counters.data_conns.add(1);
            K::side_mut(&mut self.sides)
                .conns
                .get_mut(id)
                .belongs_to(control);
            return true;
        }
        let server = self.snapshot.server(conn.server_id());
        let service = server.and_then(|s| self.snapshot.service(s.service));
        let reads = service.is_some_and(|s| s.policy.helper == Helper::ftp);
        if reads && matches!(conn.mode(), ForwardMode::nat | ForwardMode::fullnat) {
            // As many records as connections: there is one.
            let record = self.records.take(ClientAddress::none, now);
            debug_assert!(record.is_some());
            if let Some(record) = record {
                self.records.be_helped(record);
            }
            let conn = K::side_mut(&mut self.sides).conns.get_mut(id);
            conn.set_side(record);
        }
        false
    }

    /// The record of a control connection.
    #[inline]
    pub(super) fn is_helped<K: Family>(&mut self, id: ConnId) -> Option<SideId> {
        let record = K::side(&self.sides).conns.get(id).side()?;
        self.records.get_mut(record).helped.then_some(record)
    }

    /// Reads a packet, changes what it announces, and gives it the other side's numbers.
    pub(super) fn help<K: Family>(
        &mut self,
        frame: &mut Q::Frame,
        flow: &mut Flow<K>,
        hit: Hit,
        record: SideId,
        now: Tick,
    ) {
        let dir = hit.dir as usize;
        let seq = number(frame.bytes(), flow, tcp::SEQ_AT);
        // Once it stands, a SYN is anybody's, and changes nothing.
        let begins = K::side(&self.sides)
            .conns
            .get(hit.id)
            .state()
            .is_half_open();
        if flow.says & SYN != 0 && begins {
            let start = seq.wrapping_add(1);
            let header = self.records.get_mut(record).inserted;
            let known = self.records.help(record);
            known.begin(dir, start);
            if hit.dir == Direction::Inbound {
                known.line_begins(dir, start.wrapping_add(header.into())); // behind PROXY's
            }
            return;
        }
        if flow.says & RST == 0 {
            self.read(frame, flow, hit, (record, seq), now);
        }
        let known = self.records.help(record);
        let (own, others) = (&known.shifts[dir], &known.shifts[1 - dir]);
        shift::renumber(frame.bytes_mut(), flow, own, others);
    }

    /// Looks for an announcement in a segment that begins at `seq`.
    fn read<K: Family>(
        &mut self,
        frame: &mut Q::Frame,
        flow: &mut Flow<K>,
        hit: Hit,
        (record, seq): (SideId, u32),
        now: Tick,
    ) {
        let data = shift::data(frame.bytes(), flow);
        let data = &frame.bytes()[data];
        if data.is_empty() {
            return;
        }
        let (dir, side) = match hit.dir {
            Direction::Inbound => (hit.dir as usize, Side::Client),
            Direction::Outbound => (hit.dir as usize, Side::Server),
        };
        let known = self.records.help(record);
        let found = ftp::find(data, side, known.is_line(dir, seq));
        if data.last() == Some(&b'\n') {
            known.line_begins(dir, seq.wrapping_add(data.len() as u32));
        }
        self.counters.helper_missed.add(found.is_cut.into());
        let Some(said) = found.announcement else {
            return;
        };
        let (from, to) = (
            seq.wrapping_add(said.line.start as u32),
            seq.wrapping_add(said.line.end as u32),
        );
        let decided = match side {
            Side::Client => self.command::<K>(&said, hit.id, (record, from), now),
            Side::Server => self.answer::<K>(&said, hit.id, record, now),
        };
        match decided {
            Decision::Keep => {}
            Decision::Refuse => {
                self.counters.helper_refused.add(1);
                if side == Side::Client {
                    let line = said.line;
                    shift::edit(frame.bytes_mut(), flow, |data| ftp::spoil(&mut data[line]));
                }
            }
            Decision::Say(words) => {
                let by = words.len() as i32 - said.place.len() as i32;
                if !shift::replace(frame, flow, said.place, &words) {
                    return self.counters.helper_missed.add(1);
                }
                self.records.help(record).shifts[dir].note(from, to, by);
            }
        }
    }

    /// A client's command: the server is to connect to it. The command begins at `seq`.
    fn command<K: Family>(
        &mut self,
        said: &Announcement,
        id: ConnId,
        (record, seq): (SideId, u32),
        now: Tick,
    ) -> Decision {
        let conn = *K::side(&self.sides).conns.get(id);
        let client = SocketAddr::new(conn.client().ip().to_canonical(), said.port);
        if said.address != Some(client.ip()) || said.port < FIRST_PORT {
            return Decision::Refuse;
        }
        let (server, vip) = (conn.server(), conn.virtual_());
        let seen = SocketAddr::new(vip.ip(), data_port(vip.port()));
        let server = SocketAddr::new(server.ip().to_canonical(), data_port(server.port()));
        let mut decision = Decision::Keep;
        let mut to = client;
        if conn.mode() == ForwardMode::fullnat {
            let local = conn.local().ip().to_canonical();
            // What the client repeats is answered alike, or the numbers would not fit.
            let known = *self.records.help(record);
            let port = match known.asked == seq && known.given != 0 {
                true => known.given,
                false => {
                    let key = Key6::new(Proto::Tcp, client, seen);
                    self.announced_port(server, local, self.steer.owner(&key), now)
                }
            };
            let known = self.records.help(record);
            (known.asked, known.given) = (seq, port);
            to = SocketAddr::new(local, port);
            let Some(words) = ftp::words(said, to) else {
                return Decision::Keep;
            };
            decision = Decision::Say(words);
        }
        let expected = Expected {
            wanted: Wanted::new(server.ip(), to),
            is_active: true,
            from_port: 0,
            leads: bits(client.ip()),
            leads_port: client.port(),
            seen: bits(seen.ip()),
            seen_port: seen.port(),
            server: conn.server_id(),
            control: conn.key(Direction::Inbound).ports(),
        };
        self.expect(record, expected, now);
        decision
    }

    /// A server's answer: the client is to connect to it.
    fn answer<K: Family>(
        &mut self,
        said: &Announcement,
        id: ConnId,
        record: SideId,
        now: Tick,
    ) -> Decision {
        if said.port < FIRST_PORT {
            return Decision::Refuse;
        }
        let conn = *K::side(&self.sides).conns.get(id);
        let client = conn.client().ip().to_canonical();
        let vip = conn.virtual_().ip().to_canonical();
        let server = SocketAddr::new(conn.server().ip().to_canonical(), said.port);
        let Some(port) = self.passive_port(client, vip, server, now) else {
            return Decision::Refuse;
        };
        let to = SocketAddr::new(vip, port);
        let expected = Expected {
            wanted: Wanted::new(client, to),
            is_active: false,
            from_port: 0,
            leads: bits(server.ip()),
            leads_port: server.port(),
            seen: bits(conn.local().ip()),
            seen_port: 0,
            server: conn.server_id(),
            control: conn.key(Direction::Inbound).ports(),
        };
        self.expect(record, expected, now);
        // An address that is not the server's own was set by an operator who knows a better one.
        let shown = match said.address {
            Some(address) if address != server.ip() => SocketAddr::new(address, port),
            _ => to,
        };
        let unchanged = said.address.is_none_or(|a| a == shown.ip()) && said.port == port;
        match ftp::words(said, shown) {
            Some(words) if !unchanged => Decision::Say(words),
            _ => Decision::Keep,
        }
    }

    /// The port that the client is told for `server`'s: the same if it may be.
    fn passive_port(
        &mut self,
        client: IpAddr,
        vip: IpAddr,
        server: SocketAddr,
        now: Tick,
    ) -> Option<u16> {
        let ports = (0..PORTS).map(|n| server.port().wrapping_add(n).max(FIRST_PORT));
        for port in ports {
            let to = SocketAddr::new(vip, port);
            let free = match self.expected.get(&Wanted::new(client, to), now) {
                Some(known) => known.target() == server,
                None => true,
            };
            if free && !self.snapshot.listens(Proto::Tcp, to) {
                return Some(port);
            }
        }
        None
    }

    /// A port of a local address that this server is not told of now. If the server connects from
    /// where it should, it is also one by which its packets come to `home`, who owns the client's:
    /// no redirect then.
    fn announced_port(
        &mut self,
        server: SocketAddr,
        local: IpAddr,
        home: CoreId,
        now: Tick,
    ) -> u16 {
        let (me, workers) = (self.steer.me().0, self.steer.workers());
        let mut found = None;
        for _ in 0..HOMES * u16::from(workers) {
            let port = self.expected.next_port(me, workers);
            let to = SocketAddr::new(local, port);
            if self
                .expected
                .get(&Wanted::new(server.ip(), to), now)
                .is_some()
            {
                continue;
            }
            let comes_home = self.steer.owner(&Key6::new(Proto::Tcp, server, to)) == home;
            if comes_home {
                return port;
            }
            found.get_or_insert(port);
        }
        found.unwrap_or_else(|| self.expected.next_port(me, workers))
    }

    /// Has all workers expect what a control connection announced, in the place of what it
    /// announced before.
    fn expect(&mut self, record: SideId, expected: Expected, now: Tick) {
        let known = self.records.help(record);
        let before = std::mem::replace(&mut known.announced, expected.wanted);
        if before.port != 0 && before != expected.wanted {
            self.expected.remove(&before);
            self.tell_all(Message::Forget(before));
        }
        self.counters.data_expected.add(1);
        self.expected.put(expected, now);
        self.tell_all(Message::Expect(expected));
    }

    /// Says something to all other workers.
    pub(super) fn tell_all(&mut self, message: Message) {
        for core in (0..self.steer.workers()).map(CoreId) {
            if core != self.steer.me() {
                self.send_errand(core, message, None);
            }
        }
    }

    /// Has the control connections of data connections that go on do so too.
    pub(crate) fn pass_lingering(&mut self, controls: &[Key6], now: Tick) {
        for control in controls {
            let owner = self.steer.owner(control);
            match owner == self.steer.me() {
                true => self.go_on_lingering(control, now),
                false => self.send_errand(owner, Message::Linger(*control), None),
            }
        }
    }

    pub(super) fn go_on_lingering(&mut self, control: &Key6, now: Tick) {
        let found = control.unmapped().is_some_and(|key| self.linger(&key, now));
        if !found {
            self.linger(control, now); // between families: kept among the IPv6 ones
        }
    }

    /// A data connection of this control connection goes on, and so does this one.
    pub(super) fn linger<K: Family>(&mut self, key: &K, now: Tick) -> bool {
        let conns = &K::side(&self.sides).conns;
        let Some(hit) = conns.lookup(conns.hash(key), key) else {
            return false;
        };
        if self.is_helped::<K>(hit.id).is_none() {
            return false;
        }
        let conn = K::side(&self.sides).conns.get(hit.id);
        // It hears of this once in the data connection's timeout, which is the same.
        let ticks = 2 * self.snapshot.timeouts_of(conn.server_id()).of(conn.state());
        let (keys, template) = (super::redirected_keys(conn), conn.template());
        let conn = K::side_mut(&mut self.sides).conns.get_mut(hit.id);
        if now.after(ticks).since(conn.deadline()) > 0 {
            conn.lasts(ticks, now);
        }
        if let Some(keys) = keys {
            let owner = self.steer.owner(&keys.outbound);
            self.send_errand(owner, Message::Keep(keys), None);
        }
        if let Some(template) = template {
            self.tell_template(template, Heard::Stands);
        }
        true
    }
}

/// Where who serves on `port` connects from (RFC 959 3.2: L - 1).
fn data_port(port: u16) -> u16 {
    match port {
        0 | 1 => DATA_PORT,
        port => port - 1,
    }
}

/// What becomes of an announcement.
enum Decision {
    /// It goes on as it is.
    Keep,
    /// It goes on with these words.
    Say(Words),
    /// Nothing is expected, and a command is spoilt.
    Refuse,
}

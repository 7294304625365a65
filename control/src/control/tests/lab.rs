//! The control loop with real workers on simulated ports, and a kernel that only takes notes.

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rtrb::RingBuffer;
use tempfile::TempDir;
use tokio::sync::{mpsc, oneshot};
use weir_dataplane::conn::Pages;
use weir_dataplane::counters::WorkerCounters;
use weir_dataplane::io::sim::{SimFrame, SimPool, SimPort, SimQueue, Spread};
use weir_dataplane::packet::build::Packet;
use weir_dataplane::route::{Fib, Hop, Route, RouteTarget};
use weir_dataplane::service::Snapshot;
use weir_dataplane::steer::{
    Alignment, KernelEnd, MICROSOFT_KEY, Steer, Toeplitz, kernel_rings, mesh,
};
use weir_dataplane::worker::{Setup, Worker as DataWorker, WorkerPort};
use weir_dataplane::{CoreId, Mac, PortId, Tick};

use super::super::kernel::KernelTasks;
use super::super::link::WorkerLink;
use super::super::members::Members;
use super::super::ports::Outside;
use super::super::*;
use crate::api::documents;
use crate::config;

/// Workers of the lab.
const WORKERS: u8 = 2;
/// Nothing in the lab takes longer than this, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) const MACS: [Mac; 2] = [Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2])];

/// A file with one service; `servers` are the last numbers of their addresses.
pub(super) fn file(servers: &[u8]) -> String {
    let mut text = String::from(
        r#"
[workers]
count = 2
max_connections = 4096
memory = "64MiB"

[[port]]
name = "wan0"
device = "net_tap0,iface=wmt0"
addresses = ["10.0.0.2/24"]

[[port]]
name = "lan0"
device = "net_tap1,iface=wmt1"
addresses = ["10.1.0.2/24"]

[[service]]
name = "web"
address = "10.0.0.10:80"
protocol = "tcp"
scheduler = "rr"
local_addresses = ["10.1.0.100"]
"#,
    );
    for last in servers {
        text += &format!("[[service.real_server]]\naddress = \"10.1.0.{last}:80\"\n");
    }
    text
}

/// What happens around the control loop.
pub(super) struct World {
    workers: Vec<DataWorker<SimQueue>>,
    _twin_ends: Vec<KernelEnd<SimFrame>>,
    kernel: KernelTasks,
    /// The workers' time.
    now: Tick,
    /// Workers that do not turn.
    pub(super) asleep: Vec<usize>,
    /// All sets of addresses that the kernel was given, as text.
    pub(super) addresses: Vec<String>,
    /// Neighbours that the kernel was asked for.
    pub(super) resolved: Vec<Hop>,
    /// Neighbours that the kernel looks after.
    pub(super) kept: Vec<IpAddr>,
}

impl World {
    /// The workers' time goes on.
    pub(super) fn seconds_pass(&mut self, seconds: u32) {
        self.now = self.now.after(Tick::seconds(seconds));
    }

    fn turn(&mut self) {
        for (at, worker) in self.workers.iter_mut().enumerate() {
            if !self.asleep.contains(&at) {
                while worker.poll_once(self.now) > 0 {}
            }
        }
        while let Ok((wanted, answer)) = self.kernel.addresses.try_recv() {
            let addresses = wanted.iter().map(|a| a.addr.to_string());
            self.addresses.push(addresses.collect::<Vec<_>>().join(" "));
            answer.send(Vec::new()).unwrap();
        }
        while let Ok(hop) = self.kernel.resolve.try_recv() {
            self.resolved.push(hop);
        }
        let kept = self.kernel.keep.borrow_and_update();
        self.kept = kept.iter().map(|hop| hop.addr).collect();
        self.kept.sort();
    }
}

/// What a test holds in its hands.
pub(super) struct Hands {
    dir: TempDir,
    requests: mpsc::Sender<Request>,
    pub(super) net: Option<mpsc::Sender<NetEvent>>,
    pub(super) hangup: mpsc::Sender<()>,
    pub(super) stop: Option<oneshot::Sender<()>>,
    pub(super) world: Rc<RefCell<World>>,
    wires: Vec<SimPort>,
    pool: SimPool,
}

impl Hands {
    /// Asks the control loop as the API's server does.
    pub(super) async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> T {
        let (back, answer) = oneshot::channel();
        self.requests.send(request(back)).await.unwrap();
        answer.await.unwrap()
    }

    /// Writes the configuration file.
    pub(super) fn write(&self, text: &str) {
        std::fs::write(self.dir.path().join("weir.toml"), text).unwrap();
    }

    /// Tells news of the kernel's network.
    pub(super) async fn news(&self, event: NetEvent) {
        self.net.as_ref().unwrap().send(event).await.unwrap();
    }

    /// Tells of the networks of both ports.
    pub(super) async fn routes(&self) {
        let route = |port: u8| Route {
            prefix: IpAddr::from([10, port, 0, 0]),
            len: 24,
            target: RouteTarget::Port {
                port: PortId(port),
                gateway: None,
                source: None,
            },
        };
        self.news(NetEvent::Routes(vec![route(0), route(1)])).await;
    }

    /// Puts a packet of the client on the wan port's wire.
    pub(super) fn send(&self, packet: Packet) {
        let bytes = packet.macs(Mac([2, 0, 0, 0, 9, 9]), MACS[0]).build();
        self.wires[0].deliver(self.pool.frame(&bytes), 0);
    }

    /// What came out of a port.
    pub(super) fn sent(&self, port: usize) -> Option<SimFrame> {
        self.wires[port].sent()
    }

    /// Waits until the world is as the test wants it.
    pub(super) async fn until(&self, what: &str, is: impl Fn(&World) -> bool) {
        let waiting = async {
            while !is(&self.world.borrow()) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let in_time = tokio::time::timeout(PATIENCE, waiting).await;
        assert!(in_time.is_ok(), "{what}");
    }

    /// The service's servers, each as "11 active 1+0" (last number, state, active + inactive).
    pub(super) async fn servers(&self) -> Vec<String> {
        let services = self.ask(Request::Services).await;
        let servers = services.services.iter().flat_map(|s| &s.servers);
        let server = |s: &documents::Server| {
            let (ip, state) = (s.address.ip().to_string(), s.state.name());
            let last = ip.rsplit('.').next().unwrap();
            format!("{last} {state} {}+{}", s.traffic.active, s.traffic.inactive)
        };
        servers.map(server).collect()
    }

    /// Waits until the service's servers are these.
    pub(super) async fn until_servers(&self, wanted: &[&str]) {
        let waiting = async {
            while self.servers().await != wanted {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let in_time = tokio::time::timeout(PATIENCE, waiting).await;
        assert!(in_time.is_ok(), "{:?}", self.servers().await);
    }
}

/// Runs `test` beside a control loop that starts with the file `text`; how the loop ended, if
/// it did before the test.
pub(super) fn run(text: &str, test: impl AsyncFnOnce(&mut Hands)) -> Option<anyhow::Result<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (mut hands, mut control, mut inputs) = lab(text);
        let world = Rc::clone(&hands.world);
        let around = async {
            loop {
                world.borrow_mut().turn();
                tokio::time::sleep(Duration::from_micros(200)).await;
            }
        };
        let both = async {
            let tested = test(&mut hands);
            let mut ended = None;
            tokio::select! {
                biased;
                () = tested => {}
                done = control.run(&mut inputs) => ended = Some(done),
            }
            ended
        };
        tokio::select! {
            ended = both => ended,
            () = around => unreachable!(),
        }
    })
}

fn lab(text: &str) -> (Hands, Control, Inputs) {
    let dir = tempfile::tempdir().unwrap();
    let config_file = dir.path().join("weir.toml");
    std::fs::write(&config_file, text).unwrap();
    let (requests, requested) = mpsc::channel(8);
    let (net, news) = mpsc::channel(8);
    let (hangup, reload) = mpsc::channel(1);
    let (stop, stopped) = oneshot::channel();
    let (kernel, tasks) = kernel::channel();
    let (wires, ends): (Vec<_>, Vec<_>) = (0..2)
        .map(|_| {
            SimPort::new(
                WORKERS.into(),
                WORKERS.into(),
                WORKERS.into(),
                Spread::Anywhere,
            )
        })
        .unzip();
    let (links, workers, twin_ends) = workers(ends);
    let control = Control::new(Parts {
        config: config::load(&config_file).unwrap(),
        config_file,
        workers: links,
        ports: ports(),
        twins: None,
        kernel,
        ticks_began_s: 0,
    });
    let world = World {
        workers,
        _twin_ends: twin_ends,
        kernel: tasks,
        now: Tick(0),
        asleep: Vec::new(),
        addresses: Vec::new(),
        resolved: Vec::new(),
        kept: Vec::new(),
    };
    let hands = Hands {
        dir,
        requests,
        net: Some(net),
        hangup,
        stop: Some(stop),
        world: Rc::new(RefCell::new(world)),
        wires,
        pool: SimPool::default(),
    };
    let inputs = Inputs {
        requests: requested,
        net: news,
        reload,
        stop: stopped,
    };
    (hands, control.unwrap(), inputs)
}

/// A card that is plugged in and a twin that takes everything.
#[derive(Debug)]
struct Plugged;

impl Outside for Plugged {
    fn link(&self) -> (bool, Option<u32>) {
        (true, Some(10_000))
    }

    fn rx_missed(&self) -> u64 {
        3
    }

    fn set_carrier(&self, _: bool) -> std::io::Result<()> {
        Ok(())
    }
}

fn ports() -> Vec<Port> {
    let port = |(at, name): (u8, &str)| Port {
        id: PortId(at),
        name: name.to_owned(),
        device: format!("net_sim{at}"),
        driver: "net_sim".to_owned(),
        mac: MACS[usize::from(at)],
        mtu: 1500,
        mtu_limit: 1500,
        alignment: Alignment::Unaligned,
        rx_queues: WORKERS,
        tx_queues: WORKERS,
        outside: Rc::new(Plugged),
        carrier: false,
        members: Members::default(),
    };
    [(0, "wan0"), (1, "lan0")].map(port).into()
}

type Workers = (
    Vec<Worker>,
    Vec<DataWorker<SimQueue>>,
    Vec<KernelEnd<SimFrame>>,
);

fn workers(ends: Vec<Vec<SimQueue>>) -> Workers {
    let toeplitz = Arc::new(Toeplitz::new(MICROSOFT_KEY));
    let mut queues: Vec<_> = ends.into_iter().map(Vec::into_iter).collect();
    let mut made: Workers = Default::default();
    for (core, links) in (0..WORKERS).map(CoreId).zip(mesh(WORKERS, 64)) {
        let (command, commands) = RingBuffer::new(8);
        let (events, event) = RingBuffer::new(64);
        let (kernel, twin_end) = kernel_rings(64);
        let counters = Arc::new(WorkerCounters::new(2));
        made.0.push(Worker {
            link: WorkerLink::new(core, command, event, Arc::clone(&counters), 0),
            cpu: 4,
            idle: "sleep",
        });
        let port = |(at, queues): (usize, &mut std::vec::IntoIter<SimQueue>)| WorkerPort {
            id: PortId(at as u8),
            queue: queues.next().unwrap(),
            mac: MACS[at],
            mtu: 1500,
            alignment: Alignment::Unaligned,
            tx_queues: WORKERS,
            fill_checksums: false,
        };
        let setup = Setup {
            ports: queues.iter_mut().enumerate().map(port).collect(),
            steer: Steer::new(core, WORKERS, Arc::clone(&toeplitz)),
            pool: Box::new(SimPool::default()),
            links,
            kernel,
            commands,
            events,
            counters,
            peers: vec![],
            max_connections: 2048,
            max_connections6: 256,
            pages: Pages::Plain,
            secret: [1, 2, 3, 4],
            snapshot: Snapshot::empty(),
            fib: Fib::empty(),
            now: Tick(0),
        };
        made.1.push(DataWorker::new(setup).unwrap());
        made.2.push(twin_end);
    }
    made
}

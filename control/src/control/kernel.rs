//! The control loop's way to the kernel: it asks here and never waits.
//!
//! A task of its own talks to the mirror ([`run`]); the loop only leaves what it wants.
#![forbid(unsafe_code)]

use std::collections::HashSet;

use tokio::sync::{mpsc, oneshot, watch};
use weir_dataplane::PortId;
use weir_dataplane::route::Hop;

use crate::net::{AddressProblem, NetHandle, WantedAddress};

/// Questions for MAC addresses that may wait. One that finds no room is lost; the worker asks
/// again with the next packet that has to wait.
const RESOLVING: usize = 256;

/// Ports to announce again that may wait: as many as there can be.
const ANNOUNCING: usize = 16;

/// Addresses to set, and where to say what could not be done.
type AddressRequest = (Vec<WantedAddress>, oneshot::Sender<Vec<AddressProblem>>);

/// The loop's end.
#[derive(Debug)]
pub(crate) struct Kernel {
    resolve: mpsc::Sender<Hop>,
    keep: watch::Sender<HashSet<Hop>>,
    addresses: mpsc::Sender<AddressRequest>,
    announce: mpsc::Sender<PortId>,
}

/// The task's end.
#[derive(Debug)]
pub(crate) struct KernelTasks {
    pub(super) resolve: mpsc::Receiver<Hop>,
    pub(super) keep: watch::Receiver<HashSet<Hop>>,
    pub(super) addresses: mpsc::Receiver<AddressRequest>,
    pub(super) announce: mpsc::Receiver<PortId>,
}

/// Both ends.
pub(crate) fn channel() -> (Kernel, KernelTasks) {
    let (resolve, resolving) = mpsc::channel(RESOLVING);
    let (keep, kept) = watch::channel(HashSet::new());
    // Rollouts follow one another, each asks for one thing at a time.
    let (addresses, wanted) = mpsc::channel(1);
    let (announce, announced) = mpsc::channel(ANNOUNCING);
    let kernel = Kernel {
        resolve,
        keep,
        addresses,
        announce,
    };
    let tasks = KernelTasks {
        resolve: resolving,
        keep: kept,
        addresses: wanted,
        announce: announced,
    };
    (kernel, tasks)
}

impl Kernel {
    /// Has the kernel find the MAC address of `hop`.
    pub(super) fn resolve(&self, hop: Hop) {
        let _ = self.resolve.try_send(hop); // see RESOLVING
    }

    /// Has the kernel look after exactly these neighbours.
    pub(super) fn keep(&self, hops: HashSet<Hop>) {
        self.keep.send_if_modified(|kept| {
            let changed = *kept != hops;
            *kept = hops;
            changed
        });
    }

    /// Has the addresses on the twin of `port` announced again.
    pub(super) fn announce(&self, port: PortId) {
        let _ = self.announce.try_send(port); // see ANNOUNCING
    }

    /// Has the kernel hold exactly these addresses; what could not be done comes back.
    pub(super) fn set_addresses(
        &self,
        wanted: Vec<WantedAddress>,
    ) -> oneshot::Receiver<Vec<AddressProblem>> {
        let (answer, problems) = oneshot::channel();
        // Without room or a task the answer's sender is dropped, which the receiver sees.
        let _ = self.addresses.try_send((wanted, answer));
        problems
    }
}

/// Passes on to the mirror what the loop leaves, until the loop is gone.
pub(crate) async fn run(mut tasks: KernelTasks, net: NetHandle) {
    let mut kept = HashSet::new();
    loop {
        tokio::select! {
            Some((wanted, answer)) = tasks.addresses.recv() => {
                let problems = net.set_addresses(wanted).await.err().unwrap_or_default();
                let _ = answer.send(problems); // the loop may have ended
            }
            Some(port) = tasks.announce.recv() => net.announce(port).await,
            Some(hop) = tasks.resolve.recv() => net.resolve(hop.port, hop.addr).await,
            Ok(()) = tasks.keep.changed() => {
                let wanted = tasks.keep.borrow_and_update().clone();
                for hop in kept.difference(&wanted) {
                    net.release(hop.port, hop.addr).await;
                }
                for hop in wanted.difference(&kept) {
                    net.keep(hop.port, hop.addr).await;
                }
                kept = wanted;
            }
            else => return,
        }
    }
}

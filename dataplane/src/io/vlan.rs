//! 802.1Q: one card as several ports, each of its own VLAN.
//!
//! ```text
//!  0      6      12      14           16     18
//!  | dst  | src  | 8100 | PCP DEI VID | type | payload
//! ```
//! [`split`] makes of a worker's queue on a card a *trunk*, for what carries no tag, and a queue
//! for each VLAN. The worker polls all of them like any other port and knows nothing of tags:
//! they are taken off and put on here. What is of no VLAN that was asked for stays with the trunk
//! as it is, tag and all, and so reaches the kernel twin, which may have VLANs of its own.
//!
//! Trunk and VLANs are on one core and pass frames to each other by rings: a VLAN's frame leaves
//! when the trunk is polled next, and polled in this order (trunk first) VLANs have what the trunk
//! received in the same turn. A queue that was not split costs one branch a burst.
#![forbid(unsafe_code)]

use rtrb::{Consumer, Producer, RingBuffer};

use super::{BURST, Burst, Frame, PortQueue};

/// EtherType of a tag (IEEE 802.1Q 9.6).
const TAG: u16 = 0x8100;
/// Bytes of a tag.
const TAG_LEN: usize = 4;
/// Where it stands: behind the MAC addresses.
const TAG_AT: usize = 12;

/// Received frames of a VLAN that wait for it to be polled: it is, once between two bursts.
const RX_RING: usize = BURST;
/// Frames to send that wait for the trunk to be polled. A turn of the worker makes some bursts of
/// them (from ports, other workers and the kernel); past this they are the port's "queue full".
const TX_RING: usize = 8 * BURST;
/// Frames that a VLAN of a worker may hold: buffers to be there for it.
pub const HELD: usize = RX_RING + TX_RING + BURST;

/// A worker's queue on a card, or on a VLAN of it.
#[derive(Debug)]
pub enum VlanQueue<Q: PortQueue> {
    /// A card without VLANs.
    Whole(Q),
    /// What carries no tag on a card with VLANs, and all of its frames' way in and out.
    Trunk(Box<Trunk<Q>>),
    /// One VLAN.
    Tagged(Tagged<Q::Frame>),
}

/// A card with VLANs.
#[derive(Debug)]
pub struct Trunk<Q: PortQueue> {
    queue: Q,
    vlans: Vec<TrunkEnd<Q::Frame>>,
    /// Tagged frames that the card had no room for.
    waiting: Burst<Q::Frame>,
}

/// The trunk's ends of a VLAN's rings.
#[derive(Debug)]
struct TrunkEnd<F> {
    id: u16,
    received: Producer<F>,
    to_send: Consumer<F>,
}

/// A VLAN of a card.
#[derive(Debug)]
pub struct Tagged<F> {
    id: u16,
    received: Consumer<F>,
    to_send: Producer<F>,
    has_rx: bool,
    has_tx: bool,
}

/// Makes a trunk of `queue` and a queue of each VLAN, in the order of `vlans` (their numbers, 1
/// to 4094, each once). Without any, the queue stays whole.
pub fn split<Q: PortQueue>(queue: Q, vlans: &[u16]) -> (VlanQueue<Q>, Vec<VlanQueue<Q>>) {
    if vlans.is_empty() {
        return (VlanQueue::Whole(queue), Vec::new());
    }
    let (has_rx, has_tx) = (queue.has_rx(), queue.has_tx());
    let ends = vlans.iter().map(|&id| {
        let (received, for_vlan) = RingBuffer::new(RX_RING);
        let (from_vlan, to_send) = RingBuffer::new(TX_RING);
        let trunk_end = TrunkEnd {
            id,
            received,
            to_send,
        };
        let tagged = Tagged {
            id,
            received: for_vlan,
            to_send: from_vlan,
            has_rx,
            has_tx,
        };
        (trunk_end, VlanQueue::Tagged(tagged))
    });
    let (vlans, tagged) = ends.unzip();
    let trunk = Trunk {
        queue,
        vlans,
        waiting: Burst::new(),
    };
    (VlanQueue::Trunk(Box::new(trunk)), tagged)
}

impl<Q: PortQueue> Trunk<Q> {
    /// Sorts what the card received: untagged frames to `out`, others to their VLANs.
    fn rx_burst(&mut self, out: &mut Burst<Q::Frame>) {
        self.send_tagged();
        let before = out.len();
        self.queue.rx_burst(out);
        let received: Burst<Q::Frame> = out.drain(before..).collect();
        for mut frame in received {
            let kept = match vlan_of(frame.bytes()) {
                // Only a priority: the frame is of no VLAN (IEEE 802.1Q 6.9).
                Some(0) => {
                    take_tag_off(&mut frame);
                    Some(frame)
                }
                Some(id) => self.pass_on(id, frame),
                None => Some(frame),
            };
            out.extend(kept); // at most as many as there were
        }
    }

    /// Gives a frame to its VLAN; back when there is none, or no room.
    fn pass_on(&mut self, id: u16, frame: Q::Frame) -> Option<Q::Frame> {
        let Some(vlan) = self.vlans.iter_mut().find(|vlan| vlan.id == id) else {
            return Some(frame);
        };
        let rtrb::PushError::Full(frame) = vlan.received.push(frame).err()?;
        Some(frame)
    }

    /// Sends what VLANs have left here, until there is no more or the card takes no more.
    fn send_tagged(&mut self) {
        for vlan in &mut self.vlans {
            loop {
                while !self.waiting.is_full()
                    && let Ok(frame) = vlan.to_send.pop()
                {
                    self.waiting.push(frame);
                }
                if self.waiting.is_empty() {
                    break;
                }
                self.queue.tx_burst(&mut self.waiting);
                if !self.waiting.is_empty() {
                    return;
                }
            }
        }
    }
}

impl<F: Frame> Tagged<F> {
    fn rx_burst(&mut self, out: &mut Burst<F>) {
        while !out.is_full()
            && let Ok(mut frame) = self.received.pop()
        {
            take_tag_off(&mut frame);
            out.push(frame);
        }
    }

    /// A frame without room for a tag stays: untagged it would go to another network. (Buffers
    /// have that room, see `io/dpdk/pool.rs`.)
    fn tx_burst(&mut self, frames: &mut Burst<F>) {
        for mut frame in std::mem::take(frames) {
            if self.to_send.is_full() || !put_tag_on(&mut frame, self.id) {
                frames.push(frame); // at most as many as there were
            } else {
                let _ = self.to_send.push(frame); // there is room
            }
        }
    }
}

impl<Q: PortQueue> PortQueue for VlanQueue<Q> {
    type Frame = Q::Frame;

    #[inline]
    fn rx_burst(&mut self, out: &mut Burst<Q::Frame>) {
        match self {
            VlanQueue::Whole(queue) => queue.rx_burst(out),
            VlanQueue::Trunk(trunk) => trunk.rx_burst(out),
            VlanQueue::Tagged(vlan) => vlan.rx_burst(out),
        }
    }

    #[inline]
    fn tx_burst(&mut self, frames: &mut Burst<Q::Frame>) {
        match self {
            VlanQueue::Whole(queue) => queue.tx_burst(frames),
            VlanQueue::Trunk(trunk) => trunk.queue.tx_burst(frames),
            VlanQueue::Tagged(vlan) => vlan.tx_burst(frames),
        }
    }

    #[inline]
    fn has_rx(&self) -> bool {
        match self {
            VlanQueue::Whole(queue) => queue.has_rx(),
            VlanQueue::Trunk(trunk) => trunk.queue.has_rx(),
            VlanQueue::Tagged(vlan) => vlan.has_rx,
        }
    }

    #[inline]
    fn has_tx(&self) -> bool {
        match self {
            VlanQueue::Whole(queue) => queue.has_tx(),
            VlanQueue::Trunk(trunk) => trunk.queue.has_tx(),
            VlanQueue::Tagged(vlan) => vlan.has_tx,
        }
    }
}

/// The VLAN of a tagged frame, 0 for one that has a priority only; `None` without a whole tag.
fn vlan_of(frame: &[u8]) -> Option<u16> {
    let tag = frame.get(TAG_AT..TAG_AT + TAG_LEN)?;
    let is_tag = tag[..2] == TAG.to_be_bytes();
    is_tag.then(|| u16::from_be_bytes([tag[2], tag[3]]) & 0x0fff)
}

/// Takes the tag off a frame that has one.
fn take_tag_off<F: Frame>(frame: &mut F) {
    frame.bytes_mut().copy_within(..TAG_AT, TAG_LEN);
    frame.pull_front(TAG_LEN);
}

/// Puts a tag of this VLAN on, of the lowest priority; false when there is no room, or it is no
/// frame.
fn put_tag_on<F: Frame>(frame: &mut F, id: u16) -> bool {
    if frame.bytes().len() < TAG_AT || !frame.push_front(TAG_LEN) {
        return false;
    }
    let bytes = frame.bytes_mut();
    bytes.copy_within(TAG_LEN..TAG_LEN + TAG_AT, 0);
    bytes[TAG_AT..TAG_AT + 2].copy_from_slice(&TAG.to_be_bytes());
    bytes[TAG_AT + 2..TAG_AT + 4].copy_from_slice(&id.to_be_bytes());
    true
}

#[cfg(test)]
mod tests;

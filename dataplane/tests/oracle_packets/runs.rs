//! Every recorded case through the real worker: what goes in, what comes out.

use std::collections::BTreeMap;

use weir_dataplane::io::RxChecksum;
use weir_dataplane::packet::icmp::{self, Message};
use weir_dataplane::packet::{self, checksum};

use crate::common::{Director, LAN, Shape, To, WAN, reassembled};
use crate::differences::{NOT_YET, ON_PURPOSE, find};
use crate::director::{director, is_local, publish};
use crate::errors::destination;
use crate::mss;
use crate::recording::{Case, Side, Step, cases};
use crate::tunnels::{tunnel, word};

/// What a step came to.
#[derive(Debug)]
enum Verdict {
    Same,
    /// The director's own kernel got it, as it did in the recording.
    Kernel,
    /// See [`mss::lowered`].
    LowerMss,
    Differs(String),
}

fn ports(side: Side) -> To {
    To::Port(match side {
        Side::Client => WAN,
        Side::Server => LAN,
    })
}

/// Puts a step's packet in; what came out.
fn exchange(d: &mut Director, case: &Case, step: &Step) -> Vec<(To, Vec<u8>)> {
    if step.servers_removed {
        publish(d, case, false);
    }
    let port = match step.arrives {
        Side::Client => WAN,
        Side::Server => LAN,
    };
    let said = RxChecksum {
        l4_partial: step.partial,
        ..RxChecksum::default()
    };
    d.deliver_with(port, &step.frame, said);
    d.settle();
    let out = d.collect();
    d.assert_books();
    out
}

fn run(d: &mut Director, case: &Case, step: &Step) -> Verdict {
    let out = exchange(d, case, step);
    if out.iter().any(|(to, _)| matches!(to, To::Kernel(_))) {
        return match step.out.iter().all(|o| by_the_stack(step, o)) {
            true => Verdict::Kernel,
            false => Verdict::Differs("passed to the kernel".into()),
        };
    }
    let ours: Vec<_> = out
        .iter()
        .map(|(to, f)| (*to, masked(f, &step.frame)))
        .collect();
    let theirs: Vec<_> = step
        .out
        .iter()
        .map(|(side, f)| (ports(*side), masked(f, &step.frame)))
        .collect();
    match ours == theirs {
        true => Verdict::Same,
        false if mss::lowered(&ours, &theirs) => Verdict::LowerMss,
        false => Verdict::Differs(describe(&ours, &theirs)),
    }
}

/// The steps that bring the parts of one datagram. The kernel puts them together and cuts what
/// it sends anew; Weir passes on each as it is. What the receiver gets has to be the same.
fn run_parts(d: &mut Director, case: &Case, steps: &[&Step]) -> Verdict {
    let mut ours = Vec::new();
    let mut theirs = Vec::new();
    for step in steps {
        ours.extend(exchange(d, case, step));
        theirs.extend(step.out.iter().map(|(side, f)| (ports(*side), f.clone())));
    }
    if ours.iter().any(|(to, _)| matches!(to, To::Kernel(_))) {
        return Verdict::Differs("passed to the kernel".into());
    }
    let received = |frames: &[(To, Vec<u8>)]| {
        let to = frames.first().map(|(to, _)| *to);
        let one_way = frames.iter().all(|(went, _)| Some(*went) == to);
        let frames: Vec<_> = frames.iter().map(|(_, f)| f.clone()).collect();
        let whole = if one_way {
            received(&frames, case)
        } else {
            None
        };
        (to, whole)
    };
    // A part that is too big is refused as it came, and so by the same error about less.
    let (refused, by_the_kernel) = (too_big(&ours), too_big(&theirs));
    if by_the_kernel.is_some() && refused == by_the_kernel {
        return Verdict::Same;
    }
    match (received(&ours), received(&theirs)) {
        ((None, _), (None, _)) => Verdict::Same,
        ((to, Some(a)), (other, Some(b))) if to == other && a == b => Verdict::Same,
        _ => Verdict::Differs(describe(&ours, &theirs)),
    }
}

/// Where the first error went that refuses a packet for its size, and what would fit.
fn too_big(frames: &[(To, Vec<u8>)]) -> Option<(To, u16)> {
    frames.iter().find_map(|(to, f)| {
        let (at, end) = packet::upper_at(f).ok()?;
        match icmp::look(f, at, end) {
            Ok(Message::Error(quote)) => Some((*to, icmp::mtu(f, &quote)?)),
            _ => None,
        }
    })
}

/// The packet that the frames' receiver has in the end: put together, out of its tunnel, and put
/// together again.
fn received(frames: &[Vec<u8>], case: &Case) -> Option<Vec<u8>> {
    if tunnel(case).is_none() {
        return join(frames);
    }
    // The outer packet may have been cut, and what is inside: each cut has an identification.
    let mut outer = BTreeMap::<u32, Vec<Vec<u8>>>::new();
    for (n, f) in frames.iter().enumerate() {
        let id = match (is_part(f), word(f, 12)) {
            (true, 0x0800) => u32::from(word(f, 18)),
            (true, _) => u32::from(word(f, 58)) << 16 | u32::from(word(f, 60)),
            (false, _) => u32::MAX - n as u32, // none of the director's
        };
        outer.entry(id).or_default().push(f.clone());
    }
    let wrapped: Option<Vec<_>> = outer.values().map(|parts| join(parts)).collect();
    let wrapped = wrapped?;
    let inner: Option<Vec<_>> = wrapped.iter().map(|f| unwrapped(f)).collect();
    join(&inner?)
}

/// The frame inside a tunnel's; its MAC addresses are the tunnel's.
pub(crate) fn unwrapped(frame: &[u8]) -> Option<Vec<u8>> {
    let (protocol, at) = match word(frame, 12) {
        0x0800 => (frame[23], 34),
        _ => (frame[20], 54),
    };
    let at = at
        + match protocol {
            4 | 41 => 0,
            47 if frame[at] & 0x80 != 0 => 8,
            47 => 4,
            17 => 12,
            _ => return None,
        };
    let ethertype = match frame.get(at)? >> 4 {
        4 => [0x08, 0x00],
        _ => [0x86, 0xdd],
    };
    Some([&frame[..12], &ethertype, &frame[at..]].concat())
}

fn is_part(f: &[u8]) -> bool {
    match word(f, 12) {
        0x0800 => word(f, 20) & 0x3fff != 0,
        _ => f[20] == 44,
    }
}

/// The packet that these frames are parts of, or are; its identification is left out.
fn join(frames: &[Vec<u8>]) -> Option<Vec<u8>> {
    match frames {
        [one] if !is_part(one) => {
            let mut f = one.clone();
            if word(&f, 12) == 0x0800 {
                f[18..20].fill(0);
                checksum::set_ipv4(&mut f);
            }
            Some(f)
        }
        parts if parts.iter().all(|f| is_part(f)) => reassembled(parts),
        _ => None,
    }
}

/// Whether a frame may be what the director's own stack made of the step's: an answer, back to
/// where that came from, or the packet itself, routed.
fn by_the_stack(step: &Step, (side, frame): &(Side, Vec<u8>)) -> bool {
    let routed = |f: &[u8]| {
        let mut f = whole(f).to_vec();
        f[..12].fill(0);
        match word(&f, 12) {
            0x0800 => {
                f[22] = 0;
                f[24..26].fill(0);
            }
            _ => f[21] = 0,
        }
        f
    };
    *side == step.arrives
        || !is_local(destination(&step.frame)) && routed(frame) == routed(&step.frame)
}

/// A frame without Ethernet padding.
fn whole(f: &[u8]) -> &[u8] {
    let len = match word(f, 12) {
        0x0800 => usize::from(word(f, 16)),
        _ => 40 + usize::from(word(f, 18)),
    };
    &f[..f.len().min(14 + len)]
}

fn describe(ours: &[(To, Vec<u8>)], theirs: &[(To, Vec<u8>)]) -> String {
    let list = |out: &[(To, Vec<u8>)]| {
        let frames = out.iter().map(|(to, f)| format!("{to:?} {}", hex(f)));
        frames.collect::<Vec<_>>().join("\n      ")
    };
    let what = match (ours, theirs) {
        ([], _) => "dropped",
        (_, []) => "the kernel drops it",
        _ if ours.len() != theirs.len() => "another number of frames",
        _ => "other bytes",
    };
    format!("{what}\n ours {}\n them {}", list(ours), list(theirs))
}

fn hex(f: &[u8]) -> String {
    f.iter().map(|b| format!("{b:02x}")).collect()
}

/// Blanks what the recording says is variable. A packet that is passed on keeps its
/// identification and its flow label; whoever makes one chooses others.
fn masked(frame: &[u8], input: &[u8]) -> Vec<u8> {
    let mut f = whole(frame).to_vec();
    let at = 14;
    let v4 = word(&f, 12) == 0x0800;
    if v4 && (word(input, 12) != 0x0800 || word(&f, 18) != word(input, 18)) {
        f[18..20].fill(0);
        f[24..26].fill(0);
    }
    if !v4 && f[15..18] != input[15..18] {
        f[15] &= 0xf0;
        f[16..18].fill(0);
    }
    let (mut protocol, mut upper) = if v4 {
        (f[23], at + 20)
    } else {
        (f[20], at + 40)
    };
    masked_error(&mut f, upper, protocol);
    if protocol == 44 {
        f[upper + 4..upper + 8].fill(0); // its identification
        if word(&f, upper + 2) & 0xfff8 == 0 {
            (protocol, upper) = (f[upper], upper + 8);
        }
    }
    if protocol == 17 && f.len() > upper + 8 && word(&f, upper + 2) == 6080 {
        let udp = &mut f[upper..];
        if word(udp, 6) != 0 {
            let sum = u32::from(word(udp, 6)) + u32::from(word(udp, 0));
            let sum = checksum::fold(sum) % 0xffff;
            udp[6..8].copy_from_slice(&sum.to_be_bytes());
        }
        udp[..2].fill(0);
    }
    f
}

/// Of an ICMP error: what Weir quotes on purpose otherwise than the kernel. The packet that was
/// too big is quoted as it came, not with a hop less; and with NAT the quoted checksum is put
/// back with the addresses, so that traceroute knows its probe. The error's own checksum has to
/// be right and covers both.
fn masked_error(f: &mut [u8], icmp: usize, protocol: u8) {
    let end = f.len();
    if !matches!(protocol, 1 | 58) {
        return;
    }
    let Ok(Message::Error(quote)) = icmp::look(f, icmp, end) else {
        return;
    };
    let (ip, l4) = (usize::from(quote.ip), usize::from(quote.l4));
    let too_big = matches!((protocol, f[icmp], f[icmp + 1]), (1, 3, 4) | (58, 2, 0));
    f[icmp + 2..icmp + 4].fill(0);
    if too_big && protocol == 1 {
        f[ip + 8] = 0;
        f[ip + 10..ip + 12].fill(0);
    } else if too_big {
        f[ip + 7] = 0;
    }
    let sum = match quote.protocol {
        6 => l4 + 16,
        _ => l4 + 6,
    };
    if let Some(sum) = f.get_mut(sum..sum + 2) {
        sum.fill(0);
    }
}

#[test]
fn every_case_on_one_core() {
    every_case(&Shape::default());
}

#[test]
fn every_case_on_three_cores() {
    every_case(&Shape::workers(3));
}

/// Every step of every case, but for the differences on purpose.
fn every_case(shape: &Shape) {
    let (mut same, mut kernel, mut differing) = (0, 0, BTreeMap::<&str, usize>::new());
    let mut wrong = Vec::new();
    for case in cases() {
        let mut d = director(&case, shape);
        let of_one_datagram =
            |a: &Step, b: &Step| datagram(a).is_some_and(|n| Some(n) == datagram(b));
        for steps in case.steps.chunk_by(of_one_datagram) {
            let verdict = match steps {
                [step] => run(&mut d, &case, step),
                steps => run_parts(&mut d, &case, &steps.iter().collect::<Vec<_>>()),
            };
            let step = &steps[0];
            match verdict {
                Verdict::Same => same += steps.len(),
                Verdict::Kernel => kernel += steps.len(),
                Verdict::LowerMss => *differing.entry(mss::REASON).or_default() += 1,
                Verdict::Differs(how) => {
                    let known = find(ON_PURPOSE, &case, step).or(find(NOT_YET, &case, step));
                    match known {
                        Some(known) => *differing.entry(known.reason).or_default() += steps.len(),
                        None => wrong.push(format!("{} | {}: {how}", case.name, step.note)),
                    }
                }
            }
        }
    }
    println!("{same} the same, {kernel} the kernel's, {differing:#?}");
    for wrong in &wrong {
        println!("{wrong}");
    }
    assert_eq!(wrong.len(), 0);
    for known in ON_PURPOSE.iter().chain(NOT_YET) {
        assert!(
            differing.contains_key(known.reason),
            "no more: {}",
            known.reason
        );
    }
    assert!(differing.contains_key(mss::REASON));
    assert!(same > 2_500, "{same}");
}

/// Which datagram a step brings a part of: its note without the part's number.
fn datagram(step: &Step) -> Option<&str> {
    let (datagram, _) = step.note.rsplit_once(": ")?;
    datagram.contains("fragments").then_some(datagram)
}

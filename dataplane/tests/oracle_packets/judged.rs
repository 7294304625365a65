//! tshark on what Weir makes of the recorded cases: it finds nothing wrong that it did not find
//! in what came in.

use weir_dataplane::io::RxChecksum;
use weir_dataplane::packet::{self, Kind, Parsed};

use crate::common::{LAN, Shape, To, WAN};
use crate::director::{director, publish};
use crate::recording::{Side, cases};
use crate::tshark::complaints;

fn is_part(frame: &[u8]) -> bool {
    let parsed = packet::parse(frame, false);
    matches!(parsed, Ok(Parsed::Other(Kind::Fragment4 | Kind::Fragment6)))
}

#[test]
fn nothing_that_was_right_leaves_wrong() {
    let (mut came, mut left) = (Vec::new(), Vec::new());
    for case in cases() {
        let mut d = director(&case, &Shape::default());
        for step in &case.steps {
            if step.servers_removed {
                publish(&mut d, &case, false);
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
            for (to, frame) in d.collect() {
                // Parts of tunnels' packets tshark wants whole: `packets/judged.rs` has those.
                if matches!(to, To::Port(_)) && !is_part(&frame) {
                    came.push(step.frame.clone());
                    left.push(frame);
                }
            }
        }
    }
    assert!(left.len() > 1_500, "{}", left.len());
    let Some(wrong) = complaints(&came) else {
        return;
    };
    let place = |line: &String| line.split(':').next().unwrap().parse::<usize>().unwrap();
    let was_wrong: std::collections::HashSet<usize> = wrong.iter().map(place).collect();
    let all = complaints(&left).unwrap();
    let new: Vec<&String> = all
        .iter()
        .filter(|l| !was_wrong.contains(&place(l)))
        .collect();
    println!(
        "{} frames, {} wrong before, {} after",
        left.len(),
        wrong.len(),
        all.len()
    );
    for line in &new {
        let came = &came[place(line)];
        println!("{line}\n    came as {:02x?}", &came[..came.len().min(120)]);
    }
    assert_eq!(new.len(), 0);
}

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

fn key(client: u8) -> TemplateKey {
    TemplateKey::new(ServiceId(0), IpAddr::from([192, 0, 2, client]), 32, 0)
}

#[test]
fn a_netmask_makes_neighbours_one_client() {
    let at = |text: &str, prefix| TemplateKey::new(ServiceId(3), text.parse().unwrap(), prefix, 0);
    assert_eq!(at("192.0.2.7", 24), at("192.0.2.200", 24));
    assert_ne!(at("192.0.2.7", 25), at("192.0.2.200", 25));
    assert_ne!(at("192.0.2.7", 24), at("192.0.3.7", 24));
    assert_eq!(at("192.0.2.7", 24).client().to_string(), "192.0.2.0");
    assert_eq!(at("2001:db8::7:1", 96), at("2001:db8::9:1", 96));
    assert_eq!(
        at("2001:db8:0:1::7", 64).client().to_string(),
        "2001:db8:0:1::"
    );
    assert_ne!(at("::", 1), at("0.0.0.0", 1));
}

#[test]
fn past_its_time_it_stays_for_a_minute_at_a_time_while_it_controls_a_connection() {
    let at = |t: &mut Templates, s| t.now = Tick(Tick::seconds(s));
    let mut t = Templates::new(CoreId(2), 10, [1, 2]).unwrap();
    t.silence = Tick::seconds(1000);
    let (id, _) = t.insert(&key(7), 32, ServerId(5));
    let first = t.control(id, Tick::seconds(300));
    at(&mut t, 10);
    let second = t.control(id, Tick::seconds(300));
    assert_eq!((first, first.home), (second, CoreId(2)));
    assert_eq!(TemplateRef::unpacked(first.packed()), Some(first));
    let found = |t: &mut Templates, s| {
        at(t, s);
        t.find(&key(7)).map(|f| f.1)
    };
    assert_eq!(found(&mut t, 309), Some(ServerId(5)));
    assert_eq!(found(&mut t, 700), Some(ServerId(5)), "it controls two");
    at(&mut t, 705);
    t.hear(first, Heard::Gone);
    assert_eq!(found(&mut t, 720), Some(ServerId(5)));
    at(&mut t, 731);
    t.hear(second, Heard::Gone); // armed at 310, 370, ... 730 until 790
    assert_eq!(found(&mut t, 789), Some(ServerId(5)));
    assert_eq!(found(&mut t, 790), None);
    t.hear(second, Heard::Gone);
    assert!(t.is_empty());

    // A connection that is never heard of again, because a message was lost.
    at(&mut t, 1000);
    let (id, _) = t.insert(&key(7), 32, ServerId(5));
    t.control(id, Tick::seconds(300));
    assert_eq!(found(&mut t, 2000), Some(ServerId(5)));
    assert_eq!(found(&mut t, 2001), None);
}

#[test]
fn in_a_full_table_one_that_controls_nothing_goes_first() {
    let mut t = Templates::new(CoreId(0), 3, [1, 2]).unwrap();
    for client in 0..3u8 {
        let (id, evicted) = t.insert(&key(client), 32, ServerId(1));
        assert!(!evicted);
        let of = t.control(id, 1000 + u32::from(client));
        if client == 1 {
            t.hear(of, Heard::Gone);
        }
    }
    let (id, evicted) = t.insert(&key(9), 32, ServerId(1));
    assert!(evicted);
    t.control(id, 1000);
    assert_eq!(t.len(), 3);
    assert_eq!(t.find(&key(1)), None);
    assert!(t.find(&key(0)).is_some());
    // All control something: the one that would go first.
    t.insert(&key(10), 32, ServerId(1));
    assert_eq!(t.find(&key(0)), None);
}

#[derive(Debug, Clone)]
enum Step {
    Open(u8, u8),
    Gone(usize),
    Wait(u16),
    Expire,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..12u8, 0..4u8).prop_map(|(client, server)| Step::Open(client, server)),
        3 => any::<usize>().prop_map(Step::Gone),
        2 => (0..2000u16).prop_map(Step::Wait),
        1 => Just(Step::Expire),
    ]
}

proptest! {
    /// Against a map of what each client should get.
    #[test]
    fn they_are_what_a_plain_map_says(steps in prop::collection::vec(step(), 1..200)) {
        const TIMEOUT: u32 = Tick::seconds(20);
        struct Model { server: ServerId, controls: u32, deadline: Tick }
        let mut t = Templates::new(CoreId(1), 16, [3, 4]).unwrap();
        let mut model: HashMap<u8, Model> = HashMap::new();
        let mut conns: Vec<(u8, TemplateRef)> = Vec::new();
        let mut now = Tick(5);
        t.now = now;
        for step in steps {
            // What LVS's timer does at each deadline.
            model.retain(|_, m| loop {
                if !m.deadline.reached(now) {
                    return true;
                }
                if m.controls == 0 {
                    return false;
                }
                m.deadline = m.deadline.after(Tick::seconds(REARMED));
            });
            match step {
                Step::Open(client, server) => {
                    let found = t.find(&key(client));
                    prop_assert_eq!(found.map(|f| f.1), model.get(&client).map(|m| m.server));
                    let id = match found {
                        Some((id, _)) => id,
                        None => t.insert(&key(client), 32, ServerId(server.into())).0,
                    };
                    conns.push((client, t.control(id, TIMEOUT)));
                    let server = ServerId(server.into());
                    let m = model.entry(client).or_insert(Model { server, controls: 0, deadline: now });
                    m.controls += 1;
                    m.deadline = now.after(TIMEOUT);
                }
                Step::Gone(at) if !conns.is_empty() => {
                    let (client, of) = conns.swap_remove(at % conns.len());
                    t.hear(of, Heard::Gone);
                    if let Some(m) = model.get_mut(&client) {
                        m.controls -= 1;
                    }
                }
                Step::Gone(_) => {}
                Step::Wait(ticks) => {
                    now = now.after(ticks.into());
                    t.now = now;
                }
                Step::Expire => {
                    t.expire(64);
                    prop_assert_eq!(t.len() as usize, model.len());
                }
            }
        }
    }
}

#[test]
fn shed_are_those_that_control_nothing_and_were_never_assured() {
    let mut t = Templates::new(CoreId(0), 8, [1, 2]).unwrap();
    let refs: Vec<_> = (0..6u8)
        .map(|client| {
            let (id, _) = t.insert(&key(client), 32, ServerId(1));
            t.control(id, 1000)
        })
        .collect();
    let assured = |of: TemplateRef| TemplateRef {
        assured: true,
        ..of
    };
    assert!(!t.hear(assured(refs[0]), Heard::Gone));
    assert!(!t.hear(assured(refs[1]), Heard::Shed), "it is assured");
    assert!(!t.hear(refs[2], Heard::Gone));
    assert!(
        t.hear(refs[3], Heard::Shed),
        "its last one, and never assured"
    );
    // 4 controls one, 5 two.
    let (id, _) = t.find(&key(5)).unwrap();
    let second = t.control(id, 1000);
    assert_eq!(
        TemplateRef::unpacked(assured(second).packed()),
        Some(assured(second))
    );
    assert!(!t.hear(second, Heard::Shed), "not its last");
    assert_eq!(t.shed(4, |_| false), 0);
    assert_eq!(t.shed(t.slots(), |_| true), 1, "2, which controls nothing");
    assert_eq!(t.len(), 4);
    let left = |t: &mut Templates, n| t.find(&key(n)).is_some();
    assert!([0, 1, 4, 5].iter().all(|&n| left(&mut t, n)));
    assert!([2, 3].iter().all(|&n| !left(&mut t, n)));
}

/// With the last that was to open, unless anything of its own ever did.
#[test]
fn it_goes_when_nothing_of_it_opened() {
    let mut t = Templates::new(CoreId(0), 10, [1, 2]).unwrap();
    let mut refs = |client| {
        let (id, _) = t.insert(&key(client), 32, ServerId(1));
        (t.control(id, 1000), t.control(id, 1000))
    };
    let (never, gone, stands) = (refs(1), refs(2), refs(3));
    for (of, heard, ends) in [
        (never.0, Heard::Unused, false), // the other is on its way
        (never.1, Heard::Unused, true),
        (gone.0, Heard::Gone, false),
        (gone.1, Heard::Unused, false),
        (stands.1, Heard::Stands, false),
        (stands.0, Heard::Unused, false),
        (stands.1, Heard::Gone, false),
    ] {
        assert_eq!(t.hear(of, heard), ends, "{of:?}: {heard:?}");
    }
    assert!(t.find(&key(1)).is_none());
    assert!(t.find(&key(2)).is_some() && t.find(&key(3)).is_some());
}

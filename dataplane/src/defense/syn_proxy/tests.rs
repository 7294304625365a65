use super::*;

const SYN_RECV: u32 = Tick::seconds(60);

#[test]
fn it_goes_on_at_the_limit_and_off_after_calm() {
    let mut w = Watch::default();
    for n in 0..100 {
        assert!(!w.answers(Mode::Auto, 100), "{n}");
        w.opened();
    }
    assert!(w.answers(Mode::Auto, 100));
    // The flood goes on: nobody answers, so it stays for as long.
    for _ in 0..60 {
        (0..2).for_each(|_| w.sent());
        w.each_second(100, SYN_RECV);
        assert!(w.on);
    }
    // Honest clients bring their cookies back: that is calm, but the half-open are still there.
    for _ in 0..60 {
        (0..5000).for_each(|_| w.sent());
        (0..5000).for_each(|_| w.returned());
        w.each_second(100, SYN_RECV);
        assert!(w.on);
    }
    (0..50).for_each(|_| w.settled());
    for n in 1..=CALM {
        assert!(w.answers(Mode::Auto, 100));
        w.each_second(100, SYN_RECV);
        assert_eq!(w.on, n < CALM);
    }
    assert!(!w.answers(Mode::Auto, 100));
    // One calm second among others is none.
    (0..50).for_each(|_| w.opened());
    assert!(w.answers(Mode::Auto, 100));
    (0..50).for_each(|_| w.settled());
    for n in 0..100 {
        (0..u32::from(n % 9 == 0) * 2).for_each(|_| w.sent());
        w.each_second(100, SYN_RECV);
        assert!(w.on, "{n}");
    }
}

#[test]
fn always_and_off_do_not_look() {
    let mut w = Watch::default();
    assert!(w.answers(Mode::Always, 1) && !w.on);
    (0..10).for_each(|_| w.opened());
    assert!(!w.answers(Mode::Off, 1) && !w.on);
    (0..20).for_each(|_| w.settled());
    assert!(!w.answers(Mode::Auto, 1), "never below nothing");
}

#[test]
fn what_servers_refuse_is_offered_no_more() {
    let all = Offer {
        mss: 1460,
        window_scale: Some(7),
        sack: true,
        timestamps: Some((1, 2)),
    };
    let mut refused = Refused::default();
    refused.note(&all, &all);
    assert_eq!(refused.out_of(all), all);
    let poor = Offer {
        mss: 1400,
        window_scale: None,
        sack: false,
        timestamps: None,
    };
    // A client that asked for nothing was refused nothing.
    refused.note(&poor, &poor);
    assert_eq!(refused.out_of(all), Offer { mss: 1400, ..all });
    refused.note(&all, &poor);
    assert_eq!(refused.out_of(all), poor);
}

use proptest::prelude::*;

use super::*;
use crate::packet::Key4;
use crate::types::Proto;

fn key(v6: bool) -> Key6 {
    match v6 {
        true => Key6::new(
            Proto::Tcp,
            "[2001:db8::7]:40000".parse().unwrap(),
            "[2001:db8::10]:80".parse().unwrap(),
        ),
        false => Key4::new(
            Proto::Tcp,
            "192.0.2.7:40000".parse().unwrap(),
            "10.0.0.10:80".parse().unwrap(),
        )
        .into(),
    }
}

const START: Tick = Tick(0);

fn offer() -> impl Strategy<Value = Offer> {
    let scale = prop::option::of(0..=14u8);
    (
        any::<u16>(),
        scale,
        any::<bool>(),
        prop::option::of(any::<(u32, u32)>()),
    )
        .prop_map(|(mss, window_scale, sack, timestamps)| Offer {
            mss,
            window_scale,
            sack,
            timestamps,
        })
}

proptest! {
    /// Scale and SACK come back as they were, the MSS as the next smaller of the table; for a
    /// minute at least, for two at most; then it is known as one of the past, and then not at
    /// all.
    #[test]
    fn a_cookie_brings_the_options_back(
        offer in offer(), isn: u32, own: [u64; 4], v6: bool, second in 0..600u32, later in 0..600u32,
    ) {
        let (key, timed) = (key(v6), offer.timestamps.is_some());
        let mut baker = Baker::new(own, START);
        let then = START.after(Tick::seconds(second));
        let cookie = baker.bake(&key, isn, &offer, then);
        let checked = baker.check(&key, isn, cookie, timed, then.after(Tick::seconds(later)));
        let minutes = (second + later) / 60 - second / 60;
        match minutes {
            0 | 1 => {
                let Checked::Valid(known) = checked else { panic!("{checked:?}") };
                prop_assert_eq!(known.window_scale, offer.window_scale);
                prop_assert_eq!(known.sack, offer.sack);
                let sizes = if v6 { MSS6 } else { MSS4 };
                let fits = sizes.iter().rev().find(|s| **s <= offer.mss);
                prop_assert_eq!(known.mss, *fits.unwrap_or(&sizes[0]));
            }
            2 | 3 => prop_assert_eq!(checked, Checked::Expired),
            _ => prop_assert_eq!(checked, Checked::Invalid),
        }
    }

    /// Whatever of it changes, it is no cookie any more (but for one in 2^23).
    #[test]
    fn nothing_about_it_can_be_changed(
        offer in offer(), isn: u32, own: [u64; 4], bit in 0..32u32, other in 1u32..,
    ) {
        let mut baker = Baker::new(own, START);
        let timed = offer.timestamps.is_some();
        let cookie = baker.bake(&key(false), isn, &offer, START);
        let mut is_valid = |key: &Key6, isn, cookie, timed| {
            matches!(baker.check(key, isn, cookie, timed, START), Checked::Valid(_))
        };
        prop_assert!(is_valid(&key(false), isn, cookie, timed));
        prop_assert!(!is_valid(&key(false), isn, cookie ^ 1 << bit, timed));
        prop_assert!(!is_valid(&key(false), isn.wrapping_add(other), cookie, timed));
        prop_assert!(!is_valid(&key(false), isn, cookie, !timed));
        let mut moved = key(false);
        moved.ports ^= 1 << bit;
        prop_assert!(!is_valid(&moved, isn, cookie, timed));
        let mut moved = key(false);
        moved.addrs[1] ^= 1 << bit;
        prop_assert!(!is_valid(&moved, isn, cookie, timed));
        let mut other = Baker::new([own[0] ^ 1 << bit, own[1], own[2], own[3]], START);
        let elsewhere = other.check(&key(false), isn, cookie, timed, START);
        prop_assert!(!matches!(elsewhere, Checked::Valid(_)));
    }
}

/// A director that was started at another time counts the same minutes, and with the same
/// configured secret it takes the cookie.
#[test]
fn a_peer_with_the_secret_takes_it() {
    let offer = Offer {
        mss: 1460,
        window_scale: Some(8),
        sack: true,
        timestamps: None,
    };
    let now_s = 1_795_000_000u32;
    let mut one = Baker::new([1, 2, 3, 4], START);
    let mut two = Baker::new([3, 4, 5, 6], START);
    let cookies = |secret, up_for_s| Cookies {
        secret: Some(secret),
        tick_zero_s: now_s - up_for_s,
    };
    let at = |up_for_s| START.after(Tick::seconds(up_for_s));
    one.follow(&cookies([7; 16], 1000));
    two.follow(&cookies([7; 16], 12_345));
    let cookie = one.bake(&key(true), 99, &offer, at(1000));
    let taken = two.check(&key(true), 99, cookie, false, at(12_345 + 59));
    assert_eq!(taken, Checked::Valid(Offer { mss: 1440, ..offer }));
    two.follow(&cookies([8; 16], 12_345));
    let taken = two.check(&key(true), 99, cookie, false, at(12_345));
    assert_eq!(taken, Checked::Invalid);
}

/// Forgeries that know everything but the secret pass about as often as 23 bits say.
#[test]
fn guesses_do_not_pass() {
    let mut baker = Baker::new([5, 6, 7, 8], START);
    let passed = (0..1_000_000u32)
        .filter(|n| {
            let cookie = n.wrapping_mul(0x9e37_79b9);
            matches!(
                baker.check(&key(false), 5, cookie, false, START),
                Checked::Valid(_)
            )
        })
        .count();
    assert!(passed <= 3, "{passed} of a million; 0.12 are expected");
}

use proptest::prelude::*;

use super::*;

fn hex(text: &str) -> Vec<u8> {
    let pairs = (0..text.len()).step_by(2);
    pairs
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

fn key(text: &str) -> [u8; 16] {
    hex(text).try_into().unwrap()
}

/// Only configuration `at`.
fn only(at: usize, config: QuicLb) -> Quic {
    let mut quic = Quic::default();
    quic.configs[at] = Some(config);
    quic
}

/// What a server does (section 5.4), written apart from the decoder.
fn encode(at: u8, config: &QuicLb, id: &[u8], nonce: &[u8]) -> Vec<u8> {
    let mut cid = vec![at << 5 | 0x0a];
    let plain = [id, nonce].concat();
    let Some((_, cipher)) = &config.key else {
        return [cid, plain].concat();
    };
    let aes = |input: [u8; 16]| -> [u8; 16] {
        let mut block = Array::from(input);
        cipher.encrypt_block(&mut block);
        block.into()
    };
    let n = plain.len();
    if n == 16 {
        cid.extend(aes(plain.try_into().unwrap()));
        return cid;
    }
    let half = n.div_ceil(2);
    let (mut left, mut right) = (plain[..half].to_vec(), plain[n - half..].to_vec());
    if n % 2 == 1 {
        left[half - 1] &= 0xf0;
        right[0] &= 0x0f;
    }
    for pass in 1..=4 {
        let (from, to) = match pass % 2 {
            1 => (&left, &mut right),
            _ => (&right, &mut left),
        };
        let mut input = [0; 16];
        input[..half].copy_from_slice(from);
        (input[14], input[15]) = (n as u8, pass);
        let output = aes(input);
        to.iter_mut().zip(output).for_each(|(t, o)| *t ^= o);
        if n % 2 == 1 {
            left[half - 1] &= 0xf0;
            right[0] &= 0x0f;
        }
    }
    if n % 2 == 1 {
        left[half - 1] |= right.remove(0);
    }
    [cid, left, right].concat()
}

/// The worked example of section 5.4.2.4.
#[test]
fn the_draft_s_example() {
    let config = QuicLb::new(3, 4, Some(key("fdf726a9893ec05c0632d3956680baf0"))).unwrap();
    let cid = hex("0767947d29be054a");
    let id = QuicServerId::new(&hex("31441a"));
    assert_eq!(only(0, config.clone()).server_id(&cid), id);
    let mut made = encode(0, &config, &hex("31441a"), &hex("9c69c275"));
    made[0] = 0x07;
    assert_eq!(made, cid);
}

#[test]
fn without_a_key_it_is_there_to_read() {
    let quic = only(2, QuicLb::new(2, 4, None).unwrap());
    let id = QuicServerId::new(&[0xab, 0xcd]);
    assert_eq!(quic.server_id(&hex("5fabcd00000000")), id);
    assert_eq!(
        quic.server_id(&hex("5fabcd00000000ffff")),
        id,
        "more may follow"
    );
    assert_eq!(quic.server_id(&hex("5fabcd000000")), None, "too short");
    assert_eq!(
        quic.server_id(&hex("1fabcd00000000")),
        None,
        "another configuration"
    );
    assert_eq!(quic.server_id(&hex("ffabcd00000000")), None, "made by none");
    assert_eq!(quic.server_id(&[]), None);
    assert_eq!(id.unwrap().to_string(), "abcd");
}

#[test]
fn lengths_that_are_possible() {
    for (id, nonce) in [(0, 8), (2, 3), (15, 5), (255, 255)] {
        assert_eq!(QuicLb::new(id, nonce, None), None, "{id} {nonce}");
    }
    assert!(QuicLb::new(15, 4, None).is_some() && QuicLb::new(1, 18, None).is_some());
    assert_eq!(QuicServerId::new(&[]), None);
    assert_eq!(QuicServerId::new(&[0; 16]), None);
    let secret = QuicLb::new(1, 4, Some([7; 16])).unwrap();
    assert!(
        !format!("{secret:?}").contains('7'),
        "keys stay out of logs"
    );
}

proptest! {
    /// What servers make, in every length, with and without a key.
    #[test]
    fn every_length(id in 1u8..=15, more in 0u8..15, at in 0u8..7, secret in any::<Option<[u8; 16]>>(),
                    octets in any::<[u8; 19]>()) {
        let nonce = (4 + more).min(19 - id);
        let config = QuicLb::new(id, nonce, secret).unwrap();
        let (id, nonce) = octets[..usize::from(id + nonce)].split_at(id.into());
        let cid = encode(at, &config, id, nonce);
        prop_assert_eq!(only(at.into(), config).server_id(&cid), QuicServerId::new(id));
    }

    #[test]
    fn any_octets(cid in prop::collection::vec(any::<u8>(), 0..30), id in 1u8..=15, more in 0u8..15,
                  secret in any::<Option<[u8; 16]>>()) {
        let config = QuicLb::new(id, (4 + more).min(19 - id), secret).unwrap();
        let mut quic = Quic::default();
        quic.configs.fill(Some(config));
        if let Some(found) = quic.server_id(&cid) {
            prop_assert_eq!(found.octets().len(), usize::from(id));
        }
    }
}

use super::*;

#[test]
fn a_start_takes_sixteen_steps() {
    let at = |ms| step(Duration::from_millis(ms), Duration::from_secs(32));
    assert_eq!((at(0), at(1_999), at(4_000)), (1, 1, 2));
    assert_eq!((at(31_999), at(32_000), at(1 << 40)), (15, FULL, FULL));
    assert_eq!(step(Duration::from_secs(1), Duration::ZERO), FULL);
}

//! An address with a port, as a person types it.
#![forbid(unsafe_code)]

use std::net::{IpAddr, SocketAddr};

/// Reads `10.0.0.1:80` or `[2001:db8::1]:80`.
///
/// # Errors
/// What is missing or wrong, and what to write instead.
pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Err(match address {
            IpAddr::V4(_) => format!("the port is missing; write {address}:80"),
            IpAddr::V6(_) => {
                format!("the port is missing; write [{address}]:80, with the address in brackets")
            }
        });
    }
    let how = "write an address and a port, 10.0.0.1:80 or [2001:db8::1]:80";
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err(how.to_owned());
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Err(match host.parse::<IpAddr>() {
        Ok(_) => format!("{port:?} is no port; use 0 to 65535"),
        Err(_) => format!("{host:?} is no IP address; {how}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_with_ports() {
        for right in ["10.0.0.1:80", "[2001:db8::1]:80", "10.0.0.1:0"] {
            assert_eq!(address(right), Ok(right.parse().unwrap()));
        }
        for (wrong, why) in [
            ("10.1.0.11", "the port is missing; write 10.1.0.11:80"),
            (
                "2001:db8::1",
                "the port is missing; write [2001:db8::1]:80, with the address in brackets",
            ),
            (
                "[2001:db8::1]",
                "the port is missing; write [2001:db8::1]:80, with the address in brackets",
            ),
            ("10.1.0.11:http", "\"http\" is no port; use 0 to 65535"),
            (
                "[2001:db8::1]:70000",
                "\"70000\" is no port; use 0 to 65535",
            ),
            (
                "rs1:80",
                "\"rs1\" is no IP address; write an address and a port, 10.0.0.1:80 or \
                 [2001:db8::1]:80",
            ),
            (
                "rs1",
                "write an address and a port, 10.0.0.1:80 or [2001:db8::1]:80",
            ),
        ] {
            assert_eq!(address(wrong).unwrap_err(), why, "{wrong}");
        }
    }
}

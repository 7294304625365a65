//! Which clients a service takes, or does not.
#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv6Addr};

use super::prefix_set::{Entry, PrefixSet};

/// Clients that are refused: a set for each family.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Denied {
    v4: PrefixSet<u32>,
    v6: PrefixSet<u128>,
}

impl Denied {
    /// Whether this client is refused. A client of a mapped IPv6 address is the IPv4 one.
    #[inline]
    #[must_use]
    pub fn denies(&self, client: IpAddr) -> bool {
        match client {
            IpAddr::V4(client) => self.v4.contains(client.into()),
            IpAddr::V6(client) => self.v6.contains(client.into()),
        }
    }

    /// Whether nobody is refused.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// Bytes of memory.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.v4.bytes() + self.v6.bytes()
    }
}

/// A network of clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix {
    /// Any address of it.
    pub addr: IpAddr,
    /// Its length, bits.
    pub len: u8,
}

impl Prefix {
    /// The network's own address: host bits zero.
    #[must_use]
    pub fn network(self) -> IpAddr {
        use super::prefix_set::Number;
        match self.addr {
            IpAddr::V4(addr) => {
                let (first, _) = u32::from(addr).network(self.len);
                IpAddr::V4(first.into())
            }
            IpAddr::V6(addr) => IpAddr::V6(u128::from(addr).network(self.len).0.into()),
        }
    }
}

impl std::fmt::Display for Prefix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.network(), self.len)
    }
}

impl std::str::FromStr for Prefix {
    type Err = String;

    /// `10.0.0.0/8`, `2001:db8::/32`, or one address.
    fn from_str(text: &str) -> Result<Prefix, String> {
        let bad = || {
            format!(
                "{text:?} is no network; write one like \"10.0.0.0/8\", \"2001:db8::/32\" or \
                 \"192.0.2.7\""
            )
        };
        let (addr, len) = match text.split_once('/') {
            Some((addr, len)) => (addr, Some(len)),
            None => (text, None),
        };
        let addr: IpAddr = addr.parse().map_err(|_| bad())?;
        let most = match addr {
            IpAddr::V4(_) => 32,
            IpAddr::V6(_) => 128,
        };
        let digits = |len: &&str| !len.is_empty() && len.bytes().all(|b| b.is_ascii_digit());
        let len = match len {
            None => most,
            Some(len) => {
                let read = Some(len).filter(digits).and_then(|len| len.parse().ok());
                let read = read.filter(|len| *len <= most);
                read.ok_or_else(|| format!("{len:?} is no prefix length; use 0 to {most}"))?
            }
        };
        let prefix = Prefix { addr, len };
        match addr {
            IpAddr::V6(v6) if is_mapped(v6) && len >= 96 => {
                let v4 = v6.to_ipv4_mapped().map(IpAddr::V4).unwrap_or(addr);
                Err(format!(
                    "{text} is an IPv4 network; write \"{v4}/{}\"",
                    len - 96
                ))
            }
            _ if prefix.network() != addr => {
                Err(format!("{text} has host bits; write \"{prefix}\""))
            }
            _ => Ok(prefix),
        }
    }
}

fn is_mapped(addr: Ipv6Addr) -> bool {
    addr.to_ipv4_mapped().is_some()
}

/// Collects networks that are refused or not.
#[derive(Debug, Default)]
pub struct Rules {
    v4: Vec<Entry<u32>>,
    v6: Vec<Entry<u128>>,
}

impl Rules {
    /// Adds a network that is refused, or is not.
    pub fn add(&mut self, prefix: Prefix, refused: bool) {
        let (len, is_in) = (prefix.len, refused);
        match prefix.addr {
            IpAddr::V4(addr) => self.v4.push(Entry {
                network: addr.into(),
                len,
                is_in,
            }),
            IpAddr::V6(addr) => self.v6.push(Entry {
                network: addr.into(),
                len,
                is_in,
            }),
        }
    }

    /// Networks so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The clients that are refused, where the longest network decides, for one and the same
    /// network refusal wins, and for a client in none `otherwise` is the answer. Takes 0.2 s for
    /// a million.
    #[must_use]
    pub fn compile(self, otherwise: bool) -> Denied {
        Denied {
            v4: PrefixSet::new(self.v4, otherwise),
            v6: PrefixSet::new(self.v6, otherwise),
        }
    }
}

/// The access list of a service, compiled; services with the same one share it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// Whom the service refuses.
    pub denied: Denied,
    /// Networks that the list was written with.
    pub prefixes: usize,
    /// Whether connections of clients that a new list refuses are closed.
    pub closes: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_as_people_write_them() {
        let parse = |text: &str| text.parse::<Prefix>();
        for text in [
            "10.0.0.0/8",
            "0.0.0.0/0",
            "192.0.2.7/32",
            "2001:db8::/32",
            "::/0",
        ] {
            assert_eq!(parse(text).unwrap().to_string(), text);
        }
        assert_eq!(parse("192.0.2.7").unwrap().to_string(), "192.0.2.7/32");
        assert_eq!(parse("2001:db8::7").unwrap().to_string(), "2001:db8::7/128");
        for (text, problem) in [
            (
                "10.0.0.1/8",
                "10.0.0.1/8 has host bits; write \"10.0.0.0/8\"",
            ),
            ("10.0.0.0/33", "\"33\" is no prefix length; use 0 to 32"),
            ("10.0.0.0/+8", "\"+8\" is no prefix length; use 0 to 32"),
            (
                "::ffff:10.0.0.0/104",
                "::ffff:10.0.0.0/104 is an IPv4 network; write \"10.0.0.0/8\"",
            ),
        ] {
            assert_eq!(parse(text).unwrap_err(), problem);
        }
        assert!(
            parse("office")
                .unwrap_err()
                .starts_with("\"office\" is no network; write")
        );
    }

    #[test]
    fn both_families_and_the_answer_for_the_rest() {
        let mut rules = Rules::default();
        for (prefix, refused) in [
            ("10.0.0.0/8", false),
            ("10.7.0.0/16", true),
            ("2001:db8::/32", false),
        ] {
            rules.add(prefix.parse().unwrap(), refused);
        }
        let denied = rules.compile(true);
        for (client, refused) in [
            ("10.1.2.3", false),
            ("10.7.2.3", true),
            ("192.0.2.1", true),
            ("2001:db8::1", false),
            ("2001:db9::1", true),
        ] {
            assert_eq!(denied.denies(client.parse().unwrap()), refused, "{client}");
        }
        assert!(Rules::default().compile(false).is_empty());
    }
}

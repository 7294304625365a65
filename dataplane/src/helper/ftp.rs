//! What FTP says of data connections, read from and written into the bytes of a segment.
//!
//! ```text
//!  client   PORT 192,0,2,7,156,64              RFC 959   the server is to connect there
//!           EPRT |1|192.0.2.7|40000|           RFC 2428  the same, either family
//!  server   227 any text (10,1,0,11,156,64).   RFC 959   the client is to connect there
//!           229 any text (|||40000|)           RFC 2428  the same, at the address it talks to
//! ```
//! Only whole lines count, in one segment; words are read in either case, as servers do. Nothing
//! here knows of connections: all are functions of bytes, for any bytes.
#![forbid(unsafe_code)]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Range;

use arrayvec::ArrayVec;

/// Bytes of the longest announcement written: `EPRT |2|` with an IPv6 address of 39 characters
/// and a port.
const LONGEST: usize = 64;

/// The words of an announcement.
pub type Words = ArrayVec<u8, LONGEST>;

/// How a data connection is announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `PORT`.
    Port,
    /// `EPRT`.
    Eprt,
    /// `227`.
    Passive,
    /// `229`.
    Extended,
}

/// Where a data connection is to go, as a line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    /// How it says so.
    pub form: Form,
    /// The address; `None` where the line leaves it out, as 229 does.
    pub address: Option<IpAddr>,
    /// The port.
    pub port: u16,
    /// Which of the bytes that were searched say so, to be replaced by [`words`]: of a command
    /// all but the line's end.
    pub place: Range<usize>,
    /// Where the line begins and ends among them, its end included.
    pub line: Range<usize>,
}

/// Who sent the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Commands.
    Client,
    /// Answers.
    Server,
}

/// What a segment's data says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Found {
    /// The first announcement in it.
    pub announcement: Option<Announcement>,
    /// It ends in the middle of a line that begins like an announcement: the rest of it comes in
    /// another segment, and it cannot be read.
    pub is_cut: bool,
}

/// Reads the data of a segment from `side`. `at_line`: a line begins where the data does; otherwise
/// what comes before the first line's end is not looked at, so that nobody can pass the middle of
/// an answer off as one by the size of segments.
#[must_use]
pub fn find(data: &[u8], side: Side, at_line: bool) -> Found {
    let mut at = match (at_line, line_end(data)) {
        (true, _) => 0,
        (false, Some(end)) => end,
        (false, None) => return Found::default(),
    };
    while let Some(len) = data.get(at..).and_then(line_end) {
        let line = &data[at..at + len];
        if let Some(mut found) = read(line, side) {
            found.place = found.place.start + at..found.place.end + at;
            found.line = at..at + len;
            return Found {
                announcement: Some(found),
                is_cut: false,
            };
        }
        at += len;
    }
    let rest = data.get(at..).unwrap_or_default();
    let starts: &[&[u8]] = match side {
        Side::Client => &[b"PORT", b"EPRT"],
        Side::Server => &[b"227", b"229"],
    };
    Found {
        announcement: None,
        is_cut: starts.iter().any(|start| begins(rest, start)),
    }
}

/// Bytes up to the first line's end, that included.
fn line_end(data: &[u8]) -> Option<usize> {
    data.iter().position(|&b| b == b'\n').map(|at| at + 1)
}

/// Whether `data` begins with `word`, in either case, as far as it goes.
fn begins(data: &[u8], word: &[u8]) -> bool {
    let len = data.len().min(word.len());
    len > 0 && data[..len].eq_ignore_ascii_case(&word[..len])
}

/// Reads a whole line.
fn read(line: &[u8], side: Side) -> Option<Announcement> {
    let end = line.iter().rposition(|b| !b.is_ascii_whitespace())? + 1;
    let line = &line[..end];
    let word = line.get(..4)?;
    match side {
        Side::Client if word.eq_ignore_ascii_case(b"PORT") => port(line),
        Side::Client if word.eq_ignore_ascii_case(b"EPRT") => eprt(line),
        Side::Server if word == b"227 " => passive(line),
        Side::Server if word == b"229 " => extended(line),
        _ => None,
    }
}

/// Where a command's argument begins: behind the word and blanks.
fn argument(line: &[u8]) -> Option<usize> {
    let rest = line.get(4..)?;
    let blanks = rest.iter().position(|b| !matches!(b, b' ' | b'\t'))?;
    (blanks > 0).then_some(4 + blanks)
}

fn port(line: &[u8]) -> Option<Announcement> {
    let at = argument(line)?;
    let (address, port, len) = six(&line[at..])?;
    (at + len == line.len()).then(|| said(Form::Port, Some(address.into()), port, 0..line.len()))
}

fn eprt(line: &[u8]) -> Option<Announcement> {
    let argument = &line[argument(line)?..];
    let (family, address, port, len) = delimited(argument)?;
    let address: IpAddr = std::str::from_utf8(address).ok()?.parse().ok()?;
    let fits = match family {
        b"1" => address.is_ipv4(),
        b"2" => address.is_ipv6(),
        _ => false,
    };
    (fits && len == argument.len()).then(|| {
        said(
            Form::Eprt,
            Some(address.to_canonical()),
            port,
            0..line.len(),
        )
    })
}

/// The first six numbers with commas between them, wherever they are (RFC 1123 4.1.2.6).
fn passive(line: &[u8]) -> Option<Announcement> {
    let mut before = b' ';
    for at in 3..line.len() {
        let starts = line[at].is_ascii_digit() && !before.is_ascii_digit();
        before = line[at];
        if starts && let Some((address, port, len)) = six(&line[at..]) {
            let place = at..at + len;
            return Some(said(Form::Passive, Some(address.into()), port, place));
        }
    }
    None
}

fn extended(line: &[u8]) -> Option<Announcement> {
    let at = line.iter().position(|&b| b == b'(')? + 1;
    let (family, address, port, len) = delimited(&line[at..])?;
    if line.get(at + len) != Some(&b')') {
        return None;
    }
    let address = match (family, address) {
        (b"", b"") => None,
        (_, address) => Some(std::str::from_utf8(address).ok()?.parse().ok()?),
    };
    Some(said(Form::Extended, address, port, at..at + len))
}

fn said(form: Form, address: Option<IpAddr>, port: u16, place: Range<usize>) -> Announcement {
    Announcement {
        form,
        address,
        port,
        place,
        line: 0..0,
    }
}

/// Six numbers below 256 with commas between them at the start of `text`: an address, a port, and
/// how many bytes they take.
fn six(text: &[u8]) -> Option<(Ipv4Addr, u16, usize)> {
    let mut numbers = [0; 6];
    let mut at = 0;
    for (nth, number) in numbers.iter_mut().enumerate() {
        if nth > 0 {
            if text.get(at) != Some(&b',') {
                return None;
            }
            at += 1;
        }
        let (value, len) = decimal(text.get(at..)?)?;
        *number = u8::try_from(value).ok()?;
        at += len;
    }
    let [a, b, c, d, high, low] = numbers;
    let address = Ipv4Addr::new(a, b, c, d);
    Some((address, u16::from_be_bytes([high, low]), at))
}

/// A decimal number of five digits at most, and how many it has.
fn decimal(text: &[u8]) -> Option<(u32, usize)> {
    let len = text.iter().take_while(|b| b.is_ascii_digit()).count();
    let value = text[..len].iter().fold(0u32, |n, b| {
        n.wrapping_mul(10).wrapping_add(u32::from(b - b'0'))
    });
    (1..=5).contains(&len).then_some((value, len))
}

/// `|family|address|port|` at the start of `text`, with any delimiter: the three, and the bytes
/// that all takes.
fn delimited(text: &[u8]) -> Option<(&[u8], &[u8], u16, usize)> {
    let (&d, rest) = text.split_first()?;
    if !(33..=126).contains(&d) {
        return None;
    }
    let mut parts = rest.split(|&b| b == d);
    let (family, address, port) = (parts.next()?, parts.next()?, parts.next()?);
    parts.next()?; // there is a last delimiter
    let (value, len) = decimal(port)?;
    let value = u16::try_from(value).ok().filter(|_| len == port.len())?;
    Some((
        family,
        address,
        value,
        family.len() + address.len() + port.len() + 4,
    ))
}

/// The words that say `to` in the place of an announcement; `None` where its form has none for
/// that. A command between families becomes the one that the server's family has (RFC 6384).
#[must_use]
pub fn words(said: &Announcement, to: SocketAddr) -> Option<Words> {
    let mut words = Words::new();
    let other_family = said.address.is_some_and(|a| a.is_ipv4() != to.is_ipv4());
    let form = match (said.form, to) {
        (Form::Port, SocketAddr::V6(_)) => Form::Eprt,
        (Form::Eprt, SocketAddr::V4(_)) if other_family => Form::Port,
        (form, _) => form,
    };
    match (form, to) {
        (Form::Port | Form::Passive, SocketAddr::V4(to)) => {
            put(&mut words, if form == Form::Port { b"PORT " } else { b"" });
            for octet in to.ip().octets() {
                put_decimal(&mut words, octet.into());
                put(&mut words, b",");
            }
            let [high, low] = to.port().to_be_bytes();
            put_decimal(&mut words, high.into());
            put(&mut words, b",");
            put_decimal(&mut words, low.into());
        }
        (Form::Eprt, to) => {
            put(
                &mut words,
                if to.is_ipv4() {
                    b"EPRT |1|"
                } else {
                    b"EPRT |2|"
                },
            );
            put_address(&mut words, to.ip());
            put(&mut words, b"|");
            put_decimal(&mut words, to.port());
            put(&mut words, b"|");
        }
        (Form::Extended, to) => {
            put(&mut words, b"|||");
            put_decimal(&mut words, to.port());
            put(&mut words, b"|");
        }
        (Form::Port | Form::Passive, SocketAddr::V6(_)) => return None,
    }
    Some(words)
}

/// Makes of a command's argument one that every server refuses, of the same length: all digits,
/// and the letters of an IPv6 address, become 0.
pub fn spoil(line: &mut [u8]) {
    for byte in line
        .iter_mut()
        .skip(4)
        .filter(|b| b.is_ascii_alphanumeric())
    {
        *byte = b'0';
    }
}

// There is room for all that is written: `LONGEST` is more than the longest.
fn put(words: &mut Words, text: &[u8]) {
    let _ = words.try_extend_from_slice(text);
}

fn put_decimal(words: &mut Words, number: u16) {
    let mut begun = false;
    for of in [10_000, 1000, 100, 10, 1] {
        let digit = (number / of % 10) as u8;
        begun |= digit != 0 || of == 1;
        if begun {
            put(words, &[b'0' + digit]);
        }
    }
}

fn put_address(words: &mut Words, address: IpAddr) {
    match address {
        IpAddr::V4(address) => {
            for (nth, octet) in address.octets().into_iter().enumerate() {
                put(words, if nth > 0 { b"." } else { b"" });
                put_decimal(words, octet.into());
            }
        }
        // Not shortened: every reader takes this form too.
        IpAddr::V6(address) => {
            for (nth, group) in address.segments().into_iter().enumerate() {
                put(words, if nth > 0 { b":" } else { b"" });
                let mut begun = false;
                for shift in [12, 8, 4, 0] {
                    let digit = usize::from(group >> shift & 15);
                    begun |= digit != 0 || shift == 0;
                    if begun {
                        put(words, &[b"0123456789abcdef"[digit]]);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;

//! Captures: the frames of a pcap or pcapng file, and a pcap file of frames.
#![forbid(unsafe_code)]

use std::time::Duration;

use pcap_file::pcap::{PcapHeader, PcapPacket, PcapReader, PcapWriter};
use pcap_file::pcapng::blocks::interface_description::InterfaceDescriptionOption;
use pcap_file::pcapng::{Block, PcapNgReader};
use pcap_file::{DataLink, PcapError, TsResolution};

/// The longest frame that a capture may hold: libpcap's own limit.
const SNAP_LEN: u32 = 262_144;
/// The block type that a pcapng file begins with.
const SECTION_HEADER: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

/// One frame of a capture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Captured {
    /// Its time, since the epoch of the capture's clock.
    pub(crate) at: Duration,
    /// Its bytes, from the destination MAC on; what the capture holds of them.
    pub(crate) frame: Vec<u8>,
    /// Its length on the wire, bytes.
    pub(crate) length: u32,
}

/// Why a file is no capture that could be explained.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CaptureError {
    /// The format is broken.
    #[error("is no pcap or pcapng file, or a broken one: {0}")]
    Broken(#[from] PcapError),
    /// Not Ethernet frames.
    #[error(
        "holds {0:?}, no Ethernet frames; capture on one interface (tcpdump -i wan0 -w FILE), not \
         on `any`"
    )]
    NotEthernet(DataLink),
}

/// The frames of a pcap or pcapng file, in its order.
///
/// # Errors
/// See [`CaptureError`].
pub(crate) fn read(file: &[u8]) -> Result<Vec<Captured>, CaptureError> {
    match file.starts_with(&SECTION_HEADER) {
        true => read_pcapng(file),
        false => read_pcap(file),
    }
}

fn read_pcap(file: &[u8]) -> Result<Vec<Captured>, CaptureError> {
    let mut reader = PcapReader::new(file)?;
    ethernet(reader.header().datalink)?;
    let nanoseconds = match reader.header().ts_resolution {
        TsResolution::MicroSecond => 1_000,
        TsResolution::NanoSecond => 1,
    };
    let mut frames = Vec::new();
    // Raw: the library refuses frames that were cut to the capture's snap length.
    while let Some(packet) = reader.next_raw_packet() {
        let packet = packet?;
        let part = u64::from(packet.ts_frac) * nanoseconds;
        frames.push(Captured {
            at: Duration::from_secs(packet.ts_sec.into()) + Duration::from_nanos(part),
            length: packet.orig_len,
            frame: packet.data.into_owned(),
        });
    }
    Ok(frames)
}

fn read_pcapng(file: &[u8]) -> Result<Vec<Captured>, CaptureError> {
    let mut reader = PcapNgReader::new(file)?;
    let mut frames = Vec::new();
    // By interface of this section: what a unit of its timestamps is.
    let mut units: Vec<Unit> = Vec::new();
    while let Some(block) = reader.next_block() {
        match block? {
            Block::SectionHeader(_) => units.clear(),
            Block::InterfaceDescription(interface) => {
                ethernet(interface.linktype)?;
                units.push(Unit::of(&interface.options));
            }
            Block::EnhancedPacket(packet) => {
                let unit = units.get(packet.interface_id as usize).copied();
                let unit = unit.ok_or(PcapError::InvalidInterfaceId(packet.interface_id))?;
                frames.push(Captured {
                    // The library takes every unit for a nanosecond.
                    at: unit.times(packet.timestamp.as_nanos()),
                    length: packet.original_len,
                    frame: packet.data.into_owned(),
                });
            }
            Block::SimplePacket(packet) => frames.push(Captured {
                at: Duration::ZERO,
                length: packet.original_len,
                frame: packet.data.into_owned(),
            }),
            _ => {}
        }
    }
    Ok(frames)
}

/// What a unit of a pcapng interface's timestamps is: so many of them are a second.
#[derive(Debug, Clone, Copy)]
struct Unit(u64);

impl Unit {
    fn of(options: &[InterfaceDescriptionOption<'_>]) -> Unit {
        let said = options.iter().find_map(|option| match option {
            InterfaceDescriptionOption::IfTsResol(resolution) => Some(*resolution),
            _ => None,
        });
        let per_second = match said.unwrap_or(6) {
            binary @ 0x80.. => 1u64.checked_shl(u32::from(binary & 0x7f)),
            decimal => 10u64.checked_pow(decimal.into()),
        };
        Unit(per_second.unwrap_or(u64::MAX))
    }

    fn times(self, n: u128) -> Duration {
        let nanoseconds = n.saturating_mul(1_000_000_000) / u128::from(self.0);
        Duration::from_nanos(nanoseconds.try_into().unwrap_or(u64::MAX))
    }
}

fn ethernet(link: DataLink) -> Result<(), CaptureError> {
    match link {
        DataLink::ETHERNET => Ok(()),
        other => Err(CaptureError::NotEthernet(other)),
    }
}

/// A pcap file of these frames, each with its time.
pub(crate) fn write<'a>(frames: impl IntoIterator<Item = (Duration, &'a [u8])>) -> Vec<u8> {
    let header = PcapHeader {
        snaplen: SNAP_LEN,
        datalink: DataLink::ETHERNET,
        ts_resolution: TsResolution::NanoSecond,
        ..PcapHeader::default()
    };
    let written = || -> Result<Vec<u8>, PcapError> {
        let mut writer = PcapWriter::with_header(Vec::new(), header)?;
        for (at, frame) in frames {
            writer.write_packet(&PcapPacket::new(at, frame.len() as u32, frame))?;
        }
        Ok(writer.into_writer())
    };
    written().unwrap_or_default() // a Vec takes everything
}

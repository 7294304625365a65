//! The few kernel calls of the twins that no safe crate offers: making and steering a TAP, and
//! sending a finished frame out of an interface. All `unsafe` of this room is here.

use std::ffi::c_int;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::ioctl::{IntegerSetter, Opcode, Setter, Updater, ioctl, opcode};
use rustix::net::addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, netdevice};

use weir_dataplane::Mac;

// linux/if_tun.h
const TUNSETIFF: Opcode = opcode::write::<c_int>(b'T', 202);
const TUNSETPERSIST: Opcode = opcode::write::<c_int>(b'T', 203);
const TUNSETOFFLOAD: Opcode = opcode::write::<c_int>(b'T', 208);
const TUNSETCARRIER: Opcode = opcode::write::<c_int>(b'T', 226);
const IFF_TAP: u16 = 0x0002;
const IFF_NO_PI: u16 = 0x1000;
// linux/sockios.h and linux/if.h
const SIOCGIFFLAGS: Opcode = 0x8913;
const SIOCSIFFLAGS: Opcode = 0x8914;
const SIOCSIFMTU: Opcode = 0x8922;
const SIOCSIFHWADDR: Opcode = 0x8924;
const IFF_UP: u16 = 0x0001;
/// Bytes of an interface name with its closing zero (`IFNAMSIZ`).
const NAME_LEN: usize = 16;

/// `struct ifreq` of linux/if.h: an interface's name and a union of 24 bytes.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct IfReq {
    name: [u8; NAME_LEN],
    value: [u8; 24],
}

impl IfReq {
    fn new(name: &str, value: &[u8]) -> io::Result<IfReq> {
        let mut req = IfReq {
            name: [0; NAME_LEN],
            value: [0; 24],
        };
        if name.is_empty() || name.len() >= NAME_LEN {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        req.name[..name.len()].copy_from_slice(name.as_bytes());
        req.value[..value.len()].copy_from_slice(value);
        Ok(req)
    }
}

/// The program's end of a TAP interface: what it writes the kernel receives on the interface,
/// what the kernel sends it reads. Whole Ethernet frames, without packet information and
/// without a virtio header: so the kernel finishes every checksum and never hands out a
/// segment larger than the MTU. Never blocks.
#[derive(Debug)]
pub(crate) struct Tap {
    fd: OwnedFd,
}

impl Tap {
    /// Attaches to the TAP `name`, and makes it where there is none. `device` is
    /// `/dev/net/tun`.
    ///
    /// # Errors
    /// The kernel's: `ENOENT` or `ENODEV` without the device, `EPERM` without CAP_NET_ADMIN,
    /// `EINVAL` when `name` is an interface but no TAP of one queue, `EBUSY` when another
    /// process holds it.
    pub(crate) fn attach(device: &Path, name: &str) -> io::Result<Tap> {
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = rustix::fs::open(device, flags, Mode::empty())?;
        let req = IfReq::new(name, &(IFF_TAP | IFF_NO_PI).to_ne_bytes())?;
        // SAFETY: TUNSETIFF reads (and writes back) one ifreq, which `req` is to the byte;
        // it lives until the call has returned.
        unsafe { ioctl(&fd, Updater::<TUNSETIFF, IfReq>::new(&mut { req }))? };
        // SAFETY: TUNSETOFFLOAD takes a set of flags by value; 0 (no offload) is one.
        unsafe { ioctl(&fd, IntegerSetter::<TUNSETOFFLOAD>::new_usize(0))? };
        Ok(Tap { fd })
    }

    /// Whether the interface outlives this descriptor.
    pub(crate) fn set_persistent(&self, on: bool) -> io::Result<()> {
        let on = usize::from(on);
        // SAFETY: TUNSETPERSIST takes a truth value by value.
        unsafe { ioctl(&self.fd, IntegerSetter::<TUNSETPERSIST>::new_usize(on))? };
        Ok(())
    }

    /// Shows the cable of the interface plugged in, or not.
    pub(crate) fn set_carrier(&self, up: bool) -> io::Result<()> {
        let up = c_int::from(up);
        // SAFETY: TUNSETCARRIER reads one int, which lives until the call has returned.
        unsafe { ioctl(&self.fd, Setter::<TUNSETCARRIER, c_int>::new(up))? };
        Ok(())
    }

    /// Takes a frame that the kernel sent; `WouldBlock` when there is none.
    pub(crate) fn read(&self, frame: &mut [u8]) -> rustix::io::Result<usize> {
        rustix::io::read(&self.fd, frame)
    }

    /// Gives the kernel a frame to receive.
    pub(crate) fn write(&self, frame: &[u8]) -> rustix::io::Result<()> {
        rustix::io::write(&self.fd, frame).map(|_| ())
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Asks for and sets what belongs to an interface, by its name.
#[derive(Debug)]
pub(crate) struct Interfaces {
    socket: OwnedFd,
}

impl Interfaces {
    /// The interfaces of the calling thread's network namespace.
    pub(crate) fn open() -> io::Result<Interfaces> {
        let socket = rustix::net::socket_with(
            AddressFamily::INET,
            SocketType::DGRAM,
            SocketFlags::CLOEXEC,
            None,
        )?;
        Ok(Interfaces { socket })
    }

    /// The interface's index; `None` when there is no such interface.
    pub(crate) fn index(&self, name: &str) -> io::Result<Option<u32>> {
        match netdevice::name_to_index(&self.socket, name) {
            Ok(index) => Ok(Some(index)),
            Err(rustix::io::Errno::NODEV) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Gives the interface a MAC address.
    pub(crate) fn set_mac(&self, name: &str, mac: Mac) -> io::Result<()> {
        const ARPHRD_ETHER: u16 = 1;
        let mut sockaddr = [0; 8];
        sockaddr[..2].copy_from_slice(&ARPHRD_ETHER.to_ne_bytes());
        sockaddr[2..].copy_from_slice(&mac.0);
        self.set::<SIOCSIFHWADDR>(name, &sockaddr)
    }

    /// Sets the largest IP packet, in bytes.
    pub(crate) fn set_mtu(&self, name: &str, mtu: u16) -> io::Result<()> {
        self.set::<SIOCSIFMTU>(name, &c_int::from(mtu).to_ne_bytes())
    }

    /// Sets the interface administratively up.
    pub(crate) fn set_up(&self, name: &str) -> io::Result<()> {
        let mut req = IfReq::new(name, &[])?;
        // SAFETY: SIOCGIFFLAGS reads and writes one ifreq, which `req` is to the byte.
        unsafe { ioctl(&self.socket, Updater::<SIOCGIFFLAGS, IfReq>::new(&mut req))? };
        let flags = u16::from_ne_bytes([req.value[0], req.value[1]]) | IFF_UP;
        self.set::<SIOCSIFFLAGS>(name, &flags.to_ne_bytes())
    }

    fn set<const OPCODE: Opcode>(&self, name: &str, value: &[u8]) -> io::Result<()> {
        let req = IfReq::new(name, value)?;
        // SAFETY: all opcodes that this private function is called with read one ifreq.
        unsafe { ioctl(&self.socket, Setter::<OPCODE, IfReq>::new(req))? };
        Ok(())
    }
}

/// Sends finished Ethernet frames out of interfaces (a packet socket that receives nothing).
#[derive(Debug)]
pub(crate) struct FrameSender {
    socket: OwnedFd,
}

impl FrameSender {
    /// A sender for the calling thread's network namespace.
    ///
    /// # Errors
    /// `EPERM` without CAP_NET_RAW.
    pub(crate) fn open() -> io::Result<FrameSender> {
        let socket = rustix::net::socket_with(
            AddressFamily::PACKET,
            SocketType::RAW,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None, // protocol 0: nothing is ever received
        )?;
        Ok(FrameSender { socket })
    }

    /// Sends `frame` out of the interface `ifindex`.
    pub(crate) fn send(&self, ifindex: u32, frame: &[u8]) -> io::Result<()> {
        let to = LinkAddress {
            family: AddressFamily::PACKET.as_raw(),
            protocol: 0,
            ifindex: ifindex as c_int,
            arp_type: 0,
            packet_type: 0,
            len: 0,
            addr: [0; 8],
        };
        rustix::net::sendto(&self.socket, frame, SendFlags::empty(), &to)?;
        Ok(())
    }
}

/// `struct sockaddr_ll` of linux/if_packet.h.
#[repr(C)]
struct LinkAddress {
    family: u16,
    protocol: u16,
    ifindex: c_int,
    arp_type: u16,
    packet_type: u8,
    len: u8,
    addr: [u8; 8],
}

// SAFETY: `f` is given a pointer to this very struct, which is a complete sockaddr_ll, and its
// size; the struct lives as long as the borrow.
unsafe impl SocketAddrArg for LinkAddress {
    unsafe fn with_sockaddr<R>(
        &self,
        f: impl FnOnce(*const SocketAddrOpaque, SocketAddrLen) -> R,
    ) -> R {
        let ptr = std::ptr::from_ref(self).cast();
        f(ptr, size_of::<LinkAddress>() as SocketAddrLen)
    }
}

//! The API's unix socket: made once, never taken from a living Weir, gone with this one.
#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{FlockOperation, Mode, flock};

/// Everyone in the socket's group may ask and command; nobody else.
const MODE: u32 = 0o660;

/// Why there is no API socket.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SocketError {
    /// Someone answers there.
    #[error(
        "socket {0}: another weir runs and listens there; stop it, or give this one its own \
         with --socket"
    )]
    InUse(PathBuf),
    /// There is a file of that name which is no socket; it is not ours to remove.
    #[error("socket {0}: there is a file of that name that is no socket; remove it or use another")]
    NotASocket(PathBuf),
    /// The system refused one of the steps.
    #[error("socket {path}: cannot {step}: {source}")]
    Refused {
        /// The socket, or its directory.
        path: PathBuf,
        /// What was tried.
        step: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// The listening socket. Dropping it removes the file, if it still is the one that was made.
#[derive(Debug)]
pub(crate) struct ApiSocket {
    path: PathBuf,
    file: Identity,
}

/// Which file it is: device, inode, and when it was made, because inodes are used again.
type Identity = (u64, u64, Option<SystemTime>);

fn identity(path: &Path) -> io::Result<Identity> {
    let meta = fs::symlink_metadata(path)?;
    Ok((meta.dev(), meta.ino(), meta.created().ok()))
}

/// Makes the socket at `path`, mode 0660, and the directory it is in when that is missing.
///
/// A socket that a dead process left is replaced. Two starts at once cannot take it from each
/// other: the directory is locked meanwhile.
///
/// # Errors
/// See [`SocketError`]; nothing was changed but, perhaps, the directory made.
pub(crate) fn listen(path: &Path) -> Result<(ApiSocket, tokio::net::UnixListener), SocketError> {
    let refused = |path: &Path, step| {
        let path = path.to_owned();
        move |source: io::Error| SocketError::Refused { path, step, source }
    };
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    fs::create_dir_all(dir).map_err(refused(dir, "make the directory"))?;
    let lock = File::open(dir).map_err(refused(dir, "open the directory"))?;
    flock(&lock, FlockOperation::LockExclusive)
        .map_err(|e| refused(dir, "lock the directory")(e.into()))?;
    remove_stale(path)?;

    let umask = rustix::process::umask(Mode::from_raw_mode(!MODE & 0o777));
    let bound = UnixListener::bind(path);
    rustix::process::umask(umask);
    let listener = bound.map_err(refused(path, "make it"))?;

    let socket = ApiSocket {
        path: path.to_owned(),
        file: identity(path).map_err(refused(path, "look at it"))?,
    };
    let listener = listener
        .set_nonblocking(true)
        .and_then(|()| tokio::net::UnixListener::from_std(listener))
        .map_err(refused(path, "listen"))?;
    Ok((socket, listener))
}

/// Removes a socket that nobody listens on any more.
fn remove_stale(path: &Path) -> Result<(), SocketError> {
    let meta = match fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        Err(source) => {
            return Err(SocketError::Refused {
                path: path.to_owned(),
                step: "look for it",
                source,
            });
        }
    };
    if !meta.file_type().is_socket() {
        return Err(SocketError::NotASocket(path.to_owned()));
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(SocketError::InUse(path.to_owned())),
        Err(e) if e.kind() == ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(|source| SocketError::Refused {
                path: path.to_owned(),
                step: "remove what a dead process left",
                source,
            })
        }
        Err(source) => Err(SocketError::Refused {
            path: path.to_owned(),
            step: "see whether another weir runs",
            source,
        }),
    }
}

impl Drop for ApiSocket {
    fn drop(&mut self) {
        let ours = identity(&self.path).is_ok_and(|file| file == self.file);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!("cannot remove the socket {}: {error}", self.path.display());
        }
    }
}

//! Opens the API's listeners, and hands out their connections with a limit on how many there are.
//!
//! Knows nothing of gRPC and HTTP. What always holds: nobody but this machine reaches a [`LocalListener`], and nobody but its
//! owner a unix socket; no file is removed but a socket on which nobody listens.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixSocket, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::transport::server::Connected;

use super::limits;
use crate::config::Listen;

/// Connections that the kernel keeps waiting for us.
const BACKLOG: u32 = 64;

/// After accept fails for want of file descriptors or memory: time for some to come free. Without it the loop would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Others could reach it.
    #[error(
        "{address} can be reached from other machines, and the API has no authentication: use a loopback address or unix:/path"
    )]
    NotLocal {
        /// The address.
        address: Listen,
    },
    /// Somebody listens there.
    #[error("another process listens on {address}: stop it, or choose another address")]
    InUse {
        /// The address.
        address: Listen,
    },
    /// The path of the socket is some other file.
    #[error("{path} is there and is no socket: choose another path, or remove it", path = path.display())]
    NotASocket {
        /// The file.
        path: PathBuf,
    },
    /// The system refused.
    #[error("cannot listen on {address}: does its directory exist, and may we write there?")]
    Failed {
        /// The address.
        address: Listen,
        /// What it said.
        source: io::Error,
    },
}

/// A bound listener that only this machine can reach: the only kind for what has no authentication.
pub struct LocalListener(Listener);

/// A bound listener. Dropping it closes it and removes the socket's file.
pub struct Listener {
    socket: Socket,
    permits: Arc<Semaphore>,
}

enum Socket {
    Tcp(TcpListener),
    Unix { listener: UnixListener, file: SocketFile },
}

/// A socket's file, known by its inode so that a successor's file at the same path is left alone.
struct SocketFile {
    path: PathBuf,
    inode: u64,
}

impl LocalListener {
    /// Listens on `address` if it is local. Port 0 takes a free one: see [`Listener::address`].
    ///
    /// # Errors
    /// See [`BindError`]; nothing is left open.
    pub async fn bind(address: &Listen) -> Result<Self, BindError> {
        if !address.is_local() {
            return Err(BindError::NotLocal { address: address.clone() });
        }
        Listener::bind(address).await.map(Self)
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn address(&self) -> io::Result<Listen> {
        self.0.address()
    }

    /// See [`Listener::accept`].
    pub(super) async fn accept(&self) -> Connection {
        self.0.accept().await
    }
}

impl Listener {
    /// Listens on `address`, which others may reach: for what they may see. Port 0 takes a free one: see [`Listener::address`].
    ///
    /// # Errors
    /// See [`BindError`]; nothing is left open.
    pub async fn bind(address: &Listen) -> Result<Self, BindError> {
        let socket = match address {
            Listen::Tcp(tcp) => TcpListener::bind(tcp).await.map(Socket::Tcp),
            Listen::Unix(path) => {
                clear_the_way(path, address).await?;
                listen_unix(path)
            }
        };
        match socket {
            Ok(socket) => Ok(Self { socket, permits: Arc::new(Semaphore::new(limits::CONNECTIONS_MAX)) }),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                Err(BindError::InUse { address: address.clone() })
            }
            Err(source) => Err(BindError::Failed { address: address.clone(), source }),
        }
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn address(&self) -> io::Result<Listen> {
        match &self.socket {
            Socket::Tcp(listener) => listener.local_addr().map(Listen::Tcp),
            Socket::Unix { file, .. } => Ok(Listen::Unix(file.path.clone())),
        }
    }

    /// The next connection, once there are fewer than the limit. Goes on after errors of accept.
    pub(super) async fn accept(&self) -> Connection {
        let permit = Arc::clone(&self.permits).acquire_owned().await.expect("the semaphore is never closed");
        loop {
            let accepted = match &self.socket {
                Socket::Tcp(listener) => listener.accept().await.map(|(stream, peer)| {
                    // An answer's head and its message are two writes. Where it can't be set they are late, and no more.
                    let _ = stream.set_nodelay(true);
                    Stream::Tcp(stream, peer)
                }),
                Socket::Unix { listener, .. } => listener.accept().await.map(|(stream, _)| Stream::Unix(stream)),
            };
            match accepted {
                Ok(stream) => return Connection { stream, _permit: permit },
                Err(error) => {
                    tracing::debug!(%error, "a connection to the API was not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// An address as a gRPC client takes it.
#[must_use]
pub fn uri(address: &Listen) -> String {
    match address {
        Listen::Tcp(address) => format!("http://{address}"),
        Listen::Unix(path) => format!("unix:{}", path.display()),
    }
}

/// Removes a socket that a process which was killed has left behind.
async fn clear_the_way(path: &Path, address: &Listen) -> Result<(), BindError> {
    let failed = |source| BindError::Failed { address: address.clone(), source };
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(failed(source)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(BindError::NotASocket { path: path.to_owned() });
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path).await {
        // The kernel refuses only where no process holds the other end.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => remove(path).map_err(failed),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(_) | Err(_) => Err(BindError::InUse { address: address.clone() }),
    }
}

/// Binds, narrows the mode, and only then listens: there is no moment at which another user could connect.
fn listen_unix(path: &Path) -> io::Result<Socket> {
    let socket = UnixSocket::new_stream()?;
    socket.bind(path)?;
    let listening = std::fs::symlink_metadata(path).and_then(|metadata| {
        let file = SocketFile { path: path.to_owned(), inode: metadata.ino() };
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        Ok(Socket::Unix { listener: socket.listen(BACKLOG)?, file })
    });
    if listening.is_err() {
        // Ours, as bind made it; the error that is told is the first one.
        let _ = remove(path);
    }
    listening
}

#[expect(
    clippy::disallowed_methods,
    reason = "a socket's file holds no data: there is nothing for the simulated disk to lose"
)]
fn remove(path: &Path) -> io::Result<()> {
    std::fs::remove_file(path)
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if std::fs::symlink_metadata(&self.path).is_ok_and(|metadata| metadata.ino() == self.inode) {
            // What stays behind is removed by the next start.
            let _ = remove(&self.path);
        }
    }
}

/// A connection that counts until it is dropped.
pub(super) struct Connection {
    stream: Stream,
    _permit: OwnedSemaphorePermit,
}

enum Stream {
    Tcp(TcpStream, SocketAddr),
    Unix(UnixStream),
}

impl Connected for Connection {
    type ConnectInfo = Option<SocketAddr>;

    fn connect_info(&self) -> Option<SocketAddr> {
        match &self.stream {
            Stream::Tcp(_, peer) => Some(*peer),
            Stream::Unix(_) => None,
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Tcp(stream, _) => Pin::new(stream).poll_read(cx, buf),
            Stream::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Tcp(stream, _) => Pin::new(stream).poll_write(cx, buf),
            Stream::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Tcp(stream, _) => Pin::new(stream).poll_flush(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Tcp(stream, _) => Pin::new(stream).poll_shutdown(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unix(directory: &tempfile::TempDir) -> (PathBuf, Listen) {
        let path = directory.path().join("forebay.sock");
        (path.clone(), Listen::Unix(path))
    }

    #[tokio::test]
    async fn an_address_that_others_can_reach_is_refused() {
        for text in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
            let refused = LocalListener::bind(&text.parse().unwrap()).await;
            assert!(matches!(refused, Err(BindError::NotLocal { .. })), "{text}");
        }
    }

    #[tokio::test]
    async fn a_port_in_use_is_named() {
        let first = Listener::bind(&"127.0.0.1:0".parse().unwrap()).await.unwrap();
        let second = Listener::bind(&first.address().unwrap()).await;
        assert!(matches!(second, Err(BindError::InUse { .. })));
    }

    #[tokio::test]
    async fn a_socket_is_its_owners_alone_and_goes_with_the_listener() {
        let directory = tempfile::tempdir().unwrap();
        let (path, address) = unix(&directory);
        let listener = Listener::bind(&address).await.unwrap();
        let mode = std::fs::symlink_metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(listener);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_socket_left_by_a_killed_process_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let (path, address) = unix(&directory);
        // The standard library's listener leaves its file behind, as a killed process does.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let listener = Listener::bind(&address).await.unwrap();
        UnixStream::connect(&path).await.unwrap();
        drop(listener);
    }

    #[tokio::test]
    async fn a_socket_on_which_somebody_listens_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let (path, address) = unix(&directory);
        let holder = Listener::bind(&address).await.unwrap();
        let second = Listener::bind(&address).await;
        assert!(matches!(second, Err(BindError::InUse { .. })));
        UnixStream::connect(&path).await.unwrap();
        drop(holder);
    }

    #[tokio::test]
    async fn a_file_that_is_no_socket_is_never_removed() {
        let directory = tempfile::tempdir().unwrap();
        let (path, address) = unix(&directory);
        std::fs::create_dir(&path).unwrap();
        let refused = Listener::bind(&address).await;
        assert!(matches!(refused, Err(BindError::NotASocket { .. })));
        assert!(path.exists());
    }

    #[tokio::test]
    async fn a_successors_socket_survives_the_end_of_its_predecessor() {
        let directory = tempfile::tempdir().unwrap();
        let (path, address) = unix(&directory);
        let predecessor = Listener::bind(&address).await.unwrap();
        remove(&path).unwrap();
        let successor = Listener::bind(&address).await.unwrap();
        drop(predecessor);
        UnixStream::connect(&path).await.unwrap();
        drop(successor);
    }

    #[tokio::test]
    async fn connections_beyond_the_limit_wait_for_one_to_end() {
        let listener = Listener::bind(&"127.0.0.1:0".parse().unwrap()).await.unwrap();
        let Listen::Tcp(address) = listener.address().unwrap() else { panic!("it is TCP") };
        let mut clients = Vec::new();
        let mut accepted = Vec::new();
        for _ in 0..limits::CONNECTIONS_MAX {
            clients.push(TcpStream::connect(address).await.unwrap());
            accepted.push(listener.accept().await);
        }
        clients.push(TcpStream::connect(address).await.unwrap());
        let waiting = tokio::time::timeout(Duration::from_millis(50), listener.accept()).await;
        assert!(waiting.is_err(), "the limit is reached");
        accepted.pop();
        listener.accept().await;
    }
}

//! An address to listen on or to call: TCP, or a unix socket written `unix:/path`.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// What a unix socket's path may hold: `sun_path` is 108 bytes and ends with a zero.
pub(super) const UNIX_PATH_BYTES_MAX: usize = 107;

/// An address to listen on or to call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// An IP address and a port.
    Tcp(SocketAddr),
    /// A unix socket.
    Unix(PathBuf),
}

/// Why a text is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListenError {
    /// Neither form.
    #[error("{0:?} is not an IP address with a port")]
    NotAnAddress(String),
    /// `unix:` with nothing behind it.
    #[error("\"unix:\" lacks a path")]
    NoPath,
    /// Longer than the system's socket addresses.
    #[error("the socket's path is {bytes} bytes long, and the system takes {UNIX_PATH_BYTES_MAX}")]
    PathTooLong {
        /// How long it is.
        bytes: usize,
    },
}

impl Listen {
    /// Whether only this machine can reach it.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

impl FromStr for Listen {
    type Err = ListenError;

    fn from_str(text: &str) -> Result<Self, ListenError> {
        let Some(path) = text.strip_prefix("unix:") else {
            return text.parse().map(Self::Tcp).map_err(|_| ListenError::NotAnAddress(text.to_owned()));
        };
        match path.len() {
            0 => Err(ListenError::NoPath),
            bytes if bytes > UNIX_PATH_BYTES_MAX => Err(ListenError::PathTooLong { bytes }),
            _ => Ok(Self::Unix(PathBuf::from(path))),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_parse_and_print_alike() {
        for text in ["127.0.0.1:9090", "[::1]:9090", "0.0.0.0:80", "unix:/run/forebay.sock", "unix:rel.sock"] {
            let listen: Listen = text.parse().expect("it is an address");
            assert_eq!(listen.to_string(), text);
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        assert!(matches!("localhost:1".parse::<Listen>(), Err(ListenError::NotAnAddress(_))));
        assert!(matches!("127.0.0.1".parse::<Listen>(), Err(ListenError::NotAnAddress(_))));
        assert_eq!("unix:".parse::<Listen>(), Err(ListenError::NoPath));
        let long = format!("unix:/{}", "x".repeat(UNIX_PATH_BYTES_MAX));
        assert_eq!(long.parse::<Listen>(), Err(ListenError::PathTooLong { bytes: 108 }));
    }

    #[test]
    fn loopback_and_sockets_are_local() {
        let local = |text: &str| text.parse::<Listen>().expect("it is an address").is_local();
        assert!(local("127.0.0.1:1") && local("127.8.9.1:1") && local("[::1]:1") && local("unix:/s"));
        assert!(local("[::ffff:127.0.0.1]:1"), "IPv4 loopback in IPv6 clothes");
        assert!(!local("0.0.0.0:1") && !local("[::]:1") && !local("10.0.0.1:1"));
    }
}

//! Where the gRPC API listens: a loopback address or a unix socket, and nothing else.
//!
//! The API has no authentication yet, so whoever reaches it may read it. Both forms keep it to this machine; an [`Address`]
//! of any other kind can be parsed (a client may want it) but not listened on.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// The longest path that a unix socket can have on Linux, without the closing zero byte.
const UNIX_PATH_BYTES_MAX: usize = 107;

/// Where an API is found. Written `127.0.0.1:9090`, `[::1]:9090` or `unix:/run/forebay.sock`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// TCP.
    Tcp(SocketAddr),
    /// A unix socket.
    Unix(PathBuf),
}

/// Why a text is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Neither form.
    #[error("`{text}` is no address: write 127.0.0.1:9090, [::1]:9090 or unix:/path/to/socket")]
    Unreadable {
        /// What was written.
        text: String,
    },
    /// More than the system takes.
    #[error(
        "the path of the socket has {bytes} bytes: at most {UNIX_PATH_BYTES_MAX} are possible, choose a shorter one"
    )]
    PathTooLong {
        /// Its length.
        bytes: usize,
    },
}

impl Address {
    /// Whether only this machine can reach it.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            // ::ffff:127.0.0.1 is loopback too, once it is read as the IPv4 address it stands for.
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix(_) => true,
        }
    }

    /// The address as a gRPC client wants it.
    #[must_use]
    pub fn uri(&self) -> String {
        match self {
            Self::Tcp(address) => format!("http://{address}"),
            Self::Unix(path) => format!("unix:{}", path.display()),
        }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return match path.len() {
                0 => Err(AddressError::Unreadable { text: text.to_owned() }),
                bytes if bytes > UNIX_PATH_BYTES_MAX => Err(AddressError::PathTooLong { bytes }),
                _ => Ok(Self::Unix(PathBuf::from(path))),
            };
        }
        let host_named = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
        host_named
            .as_deref()
            .unwrap_or(text)
            .parse()
            .map(Self::Tcp)
            .map_err(|_| AddressError::Unreadable { text: text.to_owned() })
    }
}

impl fmt::Display for Address {
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
    fn an_address_reads_back_as_it_was_written() {
        for text in ["127.0.0.1:9090", "[::1]:9090", "unix:/run/forebay.sock", "unix:relative.sock", "10.0.0.1:1"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        assert_eq!("unix:///run/a".parse(), Ok(Address::Unix(PathBuf::from("/run/a"))));
        assert_eq!("localhost:9090".parse::<Address>().unwrap().to_string(), "127.0.0.1:9090");
    }

    #[test]
    fn what_is_no_address_is_refused_with_the_forms_that_are() {
        for text in ["", "9090", "127.0.0.1", "example.com:9090", "unix:", "unix://", "http://127.0.0.1:9090"] {
            let error = text.parse::<Address>().unwrap_err();
            assert!(error.to_string().contains("unix:/path/to/socket"), "{text}: {error}");
        }
        let long = format!("unix:/{}", "a".repeat(UNIX_PATH_BYTES_MAX));
        assert_eq!(long.parse::<Address>(), Err(AddressError::PathTooLong { bytes: UNIX_PATH_BYTES_MAX + 1 }));
    }

    #[test]
    fn only_loopback_and_sockets_are_local() {
        for text in ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1", "unix:/run/a"] {
            assert!(text.parse::<Address>().unwrap().is_local(), "{text}");
        }
        for text in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "192.168.1.1:1", "[fe80::1]:1", "[::ffff:10.0.0.1]:1"] {
            assert!(!text.parse::<Address>().unwrap().is_local(), "{text}");
        }
    }
}

//! Which addresses a destination may be on: keeps a customer's webhook out of the network that the sidecar stands in.
//!
//! Judges addresses, never names: a name is judged by what it resolves to, at the moment of connecting, and what was
//! judged is what is connected to (see `http::connector`). An IPv6 address that carries an IPv4 one is judged by both.
//! Pure.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Who chose the address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AddressPolicy {
    /// Whoever runs the sidecar: any address but link-local ones and those where clouds keep credentials.
    Operator,
    /// A customer of theirs: public addresses only.
    Customer,
}

/// Decides about addresses for one destination. Cheap to clone.
#[derive(Debug, Clone)]
pub struct AddressGuard {
    policy: AddressPolicy,
    /// What the operator allows besides.
    allowed: Option<Arc<[IpNet]>>,
}

/// What an address is, when it is not a public one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Credentials of the machine for whoever asks.
    Metadata,
    /// The network's own, without a router between. Most metadata addresses are among them.
    LinkLocal,
    /// This machine.
    Loopback,
    /// "Any": this machine, for most systems.
    Unspecified,
    /// RFC 1918, unique-local, site-local.
    Private,
    /// A carrier's or a cloud's own (100.64.0.0/10).
    Shared,
    /// To many at once.
    Multicast,
    /// For examples in texts.
    Documentation,
    /// An IPv4 address packed into an IPv6 one, in a way that public receivers do not use.
    Tunnel,
    /// For nobody, or not yet.
    Reserved,
}

/// An address was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub struct Refused {
    /// The address.
    pub address: IpAddr,
    /// What it is.
    pub kind: Kind,
    /// For whom.
    pub policy: AddressPolicy,
}

impl AddressGuard {
    /// A guard. `allowed` are networks that an operator names; a customer's destination is allowed none.
    #[must_use]
    pub fn new(policy: AddressPolicy, allowed: &[IpNet]) -> Self {
        let allowed = (policy == AddressPolicy::Operator && !allowed.is_empty()).then(|| allowed.into());
        Self { policy, allowed }
    }

    /// That of a customer, whom the operator lets into these networks besides public ones.
    #[must_use]
    pub fn customer(allowed: &[IpNet]) -> Self {
        Self { policy: AddressPolicy::Customer, allowed: (!allowed.is_empty()).then(|| allowed.into()) }
    }

    /// That of an operator who allows nothing besides.
    #[must_use]
    pub fn plain() -> Self {
        Self { policy: AddressPolicy::Operator, allowed: None }
    }

    /// Whether it is [`plain`](Self::plain).
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.policy == AddressPolicy::Operator && self.allowed.is_none()
    }

    /// Judges an address that is about to be connected to.
    ///
    /// # Errors
    /// When it may not be.
    pub fn check(&self, address: IpAddr) -> Result<(), Refused> {
        let refused = readings(address.to_canonical()).find(|&(read_as, kind)| match self.policy {
            AddressPolicy::Customer => !self.allows(read_as) && !self.allows(address),
            AddressPolicy::Operator => {
                matches!(kind, Kind::Metadata | Kind::LinkLocal) && !self.allows(read_as) && !self.allows(address)
            }
        });
        refused.map_or(Ok(()), |(_, kind)| Err(Refused { address, kind, policy: self.policy }))
    }

    /// Judges a host as it stands in a URL, if it is an address in any spelling. A name passes: it is judged by what it
    /// resolves to.
    ///
    /// # Errors
    /// When it is an address that may not be connected to.
    pub fn check_host(&self, host: &str) -> Result<(), Refused> {
        literal(host).map_or(Ok(()), |address| self.check(address))
    }

    fn allows(&self, address: IpAddr) -> bool {
        self.allowed.iter().flat_map(|allowed| allowed.iter()).any(|net| net.contains(&address.to_canonical()))
    }
}

/// The address that a URL's host is, in every spelling that resolvers take: `127.0.0.1`, `2130706433`, `0x7f.1`,
/// `0177.0.0.1`, `[::1]`, `[fe80::1%eth0]`.
#[must_use]
pub fn literal(host: &str) -> Option<IpAddr> {
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let without_zone = host.split('%').next().unwrap_or(host);
    if let Ok(address) = without_zone.parse::<Ipv6Addr>() {
        return Some(IpAddr::V6(address));
    }
    numbers(host.strip_suffix('.').unwrap_or(host)).map(IpAddr::V4)
}

/// One to four numbers, each decimal, octal or hexadecimal; the last fills what is left: inet_aton(3).
fn numbers(text: &str) -> Option<Ipv4Addr> {
    let mut parts = [0_u32; 4];
    let mut count = 0;
    for part in text.split('.') {
        *parts.get_mut(count)? = number(part)?;
        count += 1;
    }
    let (last, before) = parts[..count].split_last()?;
    let room = 32 - 8 * u32::try_from(before.len()).ok()?;
    if u64::from(*last) >> room != 0 {
        return None;
    }
    let high = before
        .iter()
        .enumerate()
        .try_fold(0, |address, (place, &part)| (part < 256).then_some(address | part << (24 - 8 * place)));
    high.map(|high| Ipv4Addr::from_bits(high | last))
}

fn number(text: &str) -> Option<u32> {
    let (digits, radix) = match text.as_bytes() {
        [b'0', b'x' | b'X', ..] => (&text[2..], 16),
        [b'0', _, ..] => (&text[1..], 8),
        _ => (text, 10),
    };
    // `from_str_radix` would take a sign.
    if !digits.bytes().all(|digit| digit.is_ascii_alphanumeric()) {
        return None;
    }
    u32::from_str_radix(digits, radix).ok()
}

/// Everything that an address leads to, or may, and that is not public: itself, and IPv4 addresses that it carries.
fn readings(address: IpAddr) -> impl Iterator<Item = (IpAddr, Kind)> {
    let own = kind(address).map(|kind| (address, kind));
    let carried = match address {
        IpAddr::V6(address) => carried(address),
        IpAddr::V4(_) => [None; 5],
    };
    let carried = carried.into_iter().flatten().filter_map(|v4| Some((IpAddr::V4(v4), kind(IpAddr::V4(v4))?)));
    // The worst first: it decides, and it is what is told.
    let mut all: Vec<_> = own.into_iter().chain(carried).collect();
    all.sort_by_key(|(_, kind)| !matches!(kind, Kind::Metadata | Kind::LinkLocal));
    all.into_iter()
}

/// What an address is by itself; `None` if it is a public one.
fn kind(address: IpAddr) -> Option<Kind> {
    match address {
        IpAddr::V4(v4) if METADATA_V4.contains(&v4) => Some(Kind::Metadata),
        IpAddr::V6(v6) if METADATA_V6.contains(&v6) => Some(Kind::Metadata),
        IpAddr::V4(v4) => RANGES_V4.iter().find(|(net, _)| net.contains(&v4)).map(|(_, kind)| *kind),
        // Translated on the way to the IPv4 address that it carries, for machines without one of their own.
        IpAddr::V6(v6) if NAT64.contains(&v6) => None,
        IpAddr::V6(v6) => match RANGES_V6.iter().find(|(net, _)| net.contains(&v6)) {
            Some((_, kind)) => Some(*kind),
            None => (!GLOBAL_V6.contains(&v6)).then_some(Kind::Reserved),
        },
    }
}

/// The IPv4 addresses that this one may be translated to, or tunnelled to.
fn carried(address: Ipv6Addr) -> [Option<Ipv4Addr>; 5] {
    let bits = address.to_bits();
    let at = |shift: u32| Some(Ipv4Addr::from_bits((bits >> shift) as u32));
    if NAT64.contains(&address) || COMPATIBLE.contains(&address) || TRANSLATED.contains(&address) {
        [at(0), None, None, None, None]
    } else if SIX_TO_FOUR.contains(&address) {
        [at(80), None, None, None, None]
    } else if TEREDO.contains(&address) {
        // The server's, and the client's with every bit turned over.
        [at(64), at(0).map(|client| Ipv4Addr::from_bits(!client.to_bits())), None, None, None]
    } else if NAT64_LOCAL.contains(&address) {
        // RFC 6052: where it stands depends on the length of the prefix, which is the network's own affair; bits 64 to 71
        // are skipped.
        let around = |before: u32| {
            let high = (bits >> 64) as u32 & ((1 << before) - 1);
            let low = (bits >> (24 + before)) as u32 & (u32::MAX >> before);
            Some(Ipv4Addr::from_bits(high << (32 - before) | low))
        };
        [at(0), around(16), around(8), at(24), None]
    } else {
        [None; 5]
    }
}

/// Where clouds keep what a machine is and may: AWS, Google, Azure, Oracle and others; AWS for containers; Alibaba; Oracle;
/// Azure's wire server.
const METADATA_V4: [Ipv4Addr; 6] = [
    Ipv4Addr::new(169, 254, 169, 254),
    Ipv4Addr::new(169, 254, 170, 2),
    Ipv4Addr::new(169, 254, 170, 23),
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(192, 0, 0, 192),
    Ipv4Addr::new(168, 63, 129, 16),
];

/// The same: AWS, AWS for containers, Google, Oracle, Scaleway.
const METADATA_V6: [Ipv6Addr; 5] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe),
    Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42),
];

/// IANA's special-purpose registry for IPv4.
const RANGES_V4: [(Ipv4Net, Kind); 15] = [
    (v4([0, 0, 0, 0], 8), Kind::Unspecified),
    (v4([10, 0, 0, 0], 8), Kind::Private),
    (v4([172, 16, 0, 0], 12), Kind::Private),
    (v4([192, 168, 0, 0], 16), Kind::Private),
    (v4([100, 64, 0, 0], 10), Kind::Shared),
    (v4([127, 0, 0, 0], 8), Kind::Loopback),
    (v4([169, 254, 0, 0], 16), Kind::LinkLocal),
    (v4([192, 0, 0, 0], 24), Kind::Reserved),
    (v4([192, 0, 2, 0], 24), Kind::Documentation),
    (v4([198, 51, 100, 0], 24), Kind::Documentation),
    (v4([203, 0, 113, 0], 24), Kind::Documentation),
    (v4([192, 88, 99, 0], 24), Kind::Reserved),
    (v4([198, 18, 0, 0], 15), Kind::Reserved),
    (v4([224, 0, 0, 0], 4), Kind::Multicast),
    (v4([240, 0, 0, 0], 4), Kind::Reserved),
];

/// The same for IPv6. Of those that overlap the first counts.
const RANGES_V6: [(Ipv6Net, Kind); 14] = [
    (v6([0, 0, 0, 0, 0, 0, 0, 0], 128), Kind::Unspecified),
    (v6([0, 0, 0, 0, 0, 0, 0, 1], 128), Kind::Loopback),
    (COMPATIBLE, Kind::Tunnel),
    (TRANSLATED, Kind::Tunnel),
    (NAT64_LOCAL, Kind::Tunnel),
    (TEREDO, Kind::Tunnel),
    (SIX_TO_FOUR, Kind::Tunnel),
    (v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23), Kind::Reserved),
    (v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32), Kind::Documentation),
    (v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20), Kind::Documentation),
    (v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7), Kind::Private),
    (v6([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10), Kind::Private),
    (v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10), Kind::LinkLocal),
    (v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8), Kind::Multicast),
];

/// All that was ever given out for public use. What lies outside and is named nowhere is reserved.
const GLOBAL_V6: Ipv6Net = v6([0x2000, 0, 0, 0, 0, 0, 0, 0], 3);
const COMPATIBLE: Ipv6Net = v6([0, 0, 0, 0, 0, 0, 0, 0], 96);
const TRANSLATED: Ipv6Net = v6([0, 0, 0, 0, 0xffff, 0, 0, 0], 96);
const NAT64: Ipv6Net = v6([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96);
const NAT64_LOCAL: Ipv6Net = v6([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48);
const TEREDO: Ipv6Net = v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 32);
const SIX_TO_FOUR: Ipv6Net = v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16);

const fn v4([a, b, c, d]: [u8; 4], prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6([a, b, c, d, e, f, g, h]: [u16; 8], prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, e, f, g, h), prefix)
}

impl Kind {
    fn words(self) -> &'static str {
        match self {
            Kind::Metadata => "a cloud's metadata address",
            Kind::LinkLocal => "a link-local address",
            Kind::Loopback => "a loopback address",
            Kind::Unspecified => "the unspecified address",
            Kind::Private => "a private address",
            Kind::Shared => "a shared address (100.64.0.0/10)",
            Kind::Multicast => "a multicast address",
            Kind::Documentation => "an address for documentation",
            Kind::Tunnel => "an IPv4 address packed into an IPv6 one",
            Kind::Reserved => "a reserved address",
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (address, what) = (self.address, self.kind.words());
        match self.policy {
            AddressPolicy::Operator => {
                write!(f, "{address} is {what}: name it in allow_addresses if that is meant")
            }
            // Without the address: what names mean inside is not a customer's affair.
            AddressPolicy::Customer => write!(
                f,
                "the host is at {what}: only public addresses may be sent to, and the networks of [grpc] allow_addresses"
            ),
        }
    }
}

#[cfg(test)]
mod tests;

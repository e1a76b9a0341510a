//! The ranges at their edges and inside, every way to pack an address into another, every spelling.

use proptest::prelude::*;

use super::*;

fn customer() -> AddressGuard {
    AddressGuard::new(AddressPolicy::Customer, &[])
}

fn operator(allowed: &[&str]) -> AddressGuard {
    let allowed: Vec<IpNet> = allowed.iter().map(|net| net.parse().unwrap()).collect();
    AddressGuard::new(AddressPolicy::Operator, &allowed)
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Every way to write an IPv4 address into an IPv6 one.
fn packed(v4: Ipv4Addr) -> Vec<Ipv6Addr> {
    let (low, inverse) = (u128::from(v4.to_bits()), u128::from(!v4.to_bits()));
    let local = 0x0064_ff9b_0001_u128 << 80;
    let around =
        |before: u32| local | (low >> (32 - before)) << 64 | (low & (u128::MAX >> (96 + before))) << (24 + before);
    let forms = [
        0xffff << 32 | low,
        low,
        0xffff << 48 | low,
        0x0064_ff9b_u128 << 96 | low,
        local | low,
        around(16),
        around(8),
        local | low << 24,
        0x2002_u128 << 112 | low << 80 | 7,
        0x2001_u128 << 112 | low << 64 | 9,
        0x2001_u128 << 112 | u128::from(Ipv4Addr::new(8, 8, 8, 8).to_bits()) << 64 | inverse,
    ];
    forms.map(Ipv6Addr::from_bits).to_vec()
}

#[test]
fn each_range_holds_its_first_and_last_address() {
    for (net, kind) in RANGES_V4 {
        for address in [net.network(), net.broadcast()] {
            let found = super::kind(IpAddr::V4(address));
            assert!(found == Some(kind) || found == Some(Kind::Metadata), "{address}: {found:?}");
        }
    }
    for (net, kind) in RANGES_V6 {
        // The first of some is the first of a narrower one, which stands before it.
        let found = super::kind(IpAddr::V6(net.broadcast()));
        assert!(found == Some(kind), "{net}: {found:?}");
        assert!(super::kind(IpAddr::V6(net.network())).is_some(), "{net}");
    }
}

#[test]
fn the_neighbours_of_ranges_are_public() {
    for text in [
        "1.0.0.0",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "126.255.255.255",
        "128.0.0.0",
        "169.253.255.255",
        "169.255.0.0",
        "172.15.255.255",
        "172.32.0.0",
        "192.0.1.0",
        "192.0.3.0",
        "192.88.98.255",
        "192.167.255.255",
        "192.169.0.0",
        "198.17.255.255",
        "198.20.0.0",
        "198.51.99.255",
        "198.51.101.0",
        "203.0.112.255",
        "203.0.114.0",
        "223.255.255.255",
        "8.8.8.8",
        "168.63.129.17",
        "2000::",
        "2001:200::",
        "2001:db7:ffff::1",
        "2001:db9::",
        "2003::",
        "3ffe::",
        "3fff:1000::",
        "2606:4700::1111",
        "::ffff:8.8.8.8",
        "64:ff9b::8.8.8.8",
    ] {
        assert_eq!(customer().check(ip(text)), Ok(()), "{text}");
    }
}

#[test]
fn what_is_inside_is_refused_to_customers_by_its_kind() {
    for (text, kind) in [
        ("0.0.0.0", Kind::Unspecified),
        ("127.8.9.10", Kind::Loopback),
        ("10.1.2.3", Kind::Private),
        ("100.64.0.1", Kind::Shared),
        ("169.254.1.1", Kind::LinkLocal),
        ("169.254.169.254", Kind::Metadata),
        ("100.100.100.200", Kind::Metadata),
        ("168.63.129.16", Kind::Metadata),
        ("203.0.113.9", Kind::Documentation),
        ("239.1.1.1", Kind::Multicast),
        ("255.255.255.255", Kind::Reserved),
        ("::", Kind::Unspecified),
        ("::1", Kind::Loopback),
        ("fd00:ec2::254", Kind::Metadata),
        ("fd12::1", Kind::Private),
        ("fe80::1", Kind::LinkLocal),
        ("ff02::1", Kind::Multicast),
        ("100::1", Kind::Reserved),
        ("5f00::1", Kind::Reserved),
        ("4000::1", Kind::Reserved),
        ("2001:db8::1", Kind::Documentation),
        ("2001:2::1", Kind::Reserved),
        ("2002:808:808::1", Kind::Tunnel),
        ("::8.8.8.8", Kind::Tunnel),
        ("::ffff:10.0.0.1", Kind::Private),
        ("64:ff9b::a9fe:a9fe", Kind::Metadata),
        ("2002:a9fe:a9fe::1", Kind::Metadata),
    ] {
        assert_eq!(customer().check(ip(text)).map_err(|refused| refused.kind), Err(kind), "{text}");
    }
}

#[test]
fn an_operator_may_name_anything_but_link_local_and_metadata() {
    for text in ["127.0.0.1", "10.0.0.1", "192.168.1.1", "100.64.0.1", "::1", "fd12::1", "8.8.8.8", "64:ff9b::a00:1"] {
        assert_eq!(operator(&[]).check(ip(text)), Ok(()), "{text}");
    }
    for text in ["169.254.0.1", "169.254.169.254", "100.100.100.200", "fd00:ec2::254", "fe80::1"] {
        assert!(operator(&[]).check(ip(text)).is_err(), "{text}");
    }
}

#[test]
fn what_an_operator_allows_passes_in_every_form_and_its_neighbour_does_not() {
    let guard = operator(&["169.254.7.0/24", "fe80::5/128"]);
    let (inside, outside) = (Ipv4Addr::new(169, 254, 7, 9), Ipv4Addr::new(169, 254, 8, 9));
    assert_eq!(guard.check(inside.into()), Ok(()));
    assert_eq!(guard.check(ip("fe80::5")), Ok(()));
    assert_eq!(guard.check(ip("::ffff:169.254.7.9")), Ok(()));
    assert_eq!(guard.check(ip("64:ff9b::169.254.7.9")), Ok(()));
    assert!(guard.check(outside.into()).is_err() && guard.check(ip("fe80::6")).is_err());
    assert!(guard.check(ip("169.254.169.254")).unwrap_err().to_string().contains("allow_addresses"));
}

#[test]
fn a_customer_is_allowed_nothing_and_not_told_what_names_mean_inside() {
    let guard = AddressGuard::new(AddressPolicy::Customer, &["10.0.0.0/8".parse().unwrap()]);
    let refused = guard.check(ip("10.1.2.3")).unwrap_err().to_string();
    assert!(refused.contains("private") && !refused.contains("10.1"), "{refused}");
}

#[test]
fn a_customer_is_let_in_where_the_operator_says_so_and_nowhere_else() {
    let guard = AddressGuard::customer(&["10.1.0.0/16".parse().unwrap()]);
    assert!(guard.check(ip("10.1.2.3")).is_ok() && guard.check(ip("8.8.8.8")).is_ok());
    for refused in ["10.2.0.1", "127.0.0.1", "169.254.169.254", "::1"] {
        assert!(guard.check(ip(refused)).is_err(), "{refused}");
    }
}

#[test]
fn odd_spellings_are_addresses() {
    for text in [
        "127.0.0.1",
        "127.1",
        "127.0.1",
        "2130706433",
        "0x7f000001",
        "0X7F.0.0.1",
        "0177.0.0.1",
        "017700000001",
        "127.0.0.1.",
        "0x7f.0x0.0x0.0x1",
        "[::ffff:127.0.0.1]",
        "::ffff:7f00:1",
    ] {
        assert_eq!(literal(text).map(|address| address.to_canonical()), Some(ip("127.0.0.1")), "{text}");
        assert!(customer().check_host(text).is_err(), "{text}");
    }
    assert_eq!(literal("[fe80::1%25eth0]"), Some(ip("fe80::1")));
    for name in [
        "",
        ".",
        "1.2.3.4.5",
        "256.1.1.1",
        "1.2.65536",
        "4294967296",
        "example.com",
        "0x",
        "08",
        "1..2",
        "-1",
        "+1",
        "a.1",
    ] {
        assert_eq!(literal(name), None, "{name:?}");
    }
    assert_eq!(literal("0"), Some(ip("0.0.0.0")));
}

proptest! {
    #[test]
    fn an_address_is_refused_however_it_is_packed(range in 0..RANGES_V4.len(), host: u32) {
        let (net, kind) = RANGES_V4[range];
        let v4 = Ipv4Addr::from_bits(net.network().to_bits() | host & net.hostmask().to_bits());
        prop_assert!(customer().check(v4.into()).is_err());
        for v6 in packed(v4) {
            prop_assert!(customer().check(v6.into()).is_err(), "{} as {}", v4, v6);
            if kind == Kind::LinkLocal {
                prop_assert!(operator(&[]).check(v6.into()).is_err(), "{} as {}", v4, v6);
            }
        }
    }

    #[test]
    fn every_address_of_a_range_is_refused(range in 0..RANGES_V6.len(), host: u128) {
        let (net, _) = RANGES_V6[range];
        let v6 = Ipv6Addr::from_bits(net.network().to_bits() | host & net.hostmask().to_bits());
        prop_assert!(customer().check(v6.into()).is_err(), "{}", v6);
    }

    #[test]
    fn a_public_address_passes_as_itself_mapped_and_translated(bits: u32) {
        let v4 = Ipv4Addr::from_bits(bits);
        let public = super::kind(v4.into()).is_none();
        let nat64 = Ipv6Addr::from_bits(0x0064_ff9b_u128 << 96 | u128::from(bits));
        for address in [v4.into(), v4.to_ipv6_mapped().into(), nat64.into()] {
            prop_assert_eq!(customer().check(address).is_ok(), public, "{}", address);
        }
    }

    #[test]
    fn nothing_outside_the_public_space_passes(bits: u128) {
        let v6 = Ipv6Addr::from_bits(bits);
        if v6.to_ipv4_mapped().is_none() && !NAT64.contains(&v6) && bits >> 125 != 1 {
            prop_assert!(customer().check(v6.into()).is_err(), "{}", v6);
        }
    }

    #[test]
    fn every_spelling_of_an_address_is_that_address(bits: u32) {
        let v4 = Ipv4Addr::from_bits(bits);
        let [a, b, c, d] = v4.octets();
        for text in [
            format!("{bits}"), format!("{bits:#x}"), format!("0{bits:o}"), format!("{a:#x}.{b}.0{c:o}.{d}"),
            format!("{a}.{}", bits & 0xff_ffff), format!("{a}.{b}.{}", bits & 0xffff), v4.to_string(),
        ] {
            prop_assert_eq!(literal(&text), Some(v4.into()), "{}", text);
        }
    }

    #[test]
    fn no_text_makes_it_panic(text in "[0-9a-fx.:%\\[\\]]{0,24}|\\PC{0,12}") {
        let _ = literal(&text);
    }
}

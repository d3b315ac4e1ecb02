//! From the text of a setting to its value. Each function says what it would have allowed.

use std::ops::RangeInclusive;

use crate::base::id::NodeId;
use crate::base::size::bytes;
use crate::ring::member::Member;

/// The longest zone, cluster or host name, in bytes.
const NAME_SIZE_MAX: usize = 253;

/// Added to the client port when no peer port is given, as Redis Cluster does for its bus.
pub const PEER_PORT_OFFSET: u16 = 10_000;

/// A whole number within `range`.
pub fn number(text: &str, range: RangeInclusive<u64>) -> Result<u64, String> {
    text.parse()
        .ok()
        .filter(|number| range.contains(number))
        .ok_or_else(|| format!("must be a whole number from {} to {}", range.start(), range.end()))
}

/// A port.
pub fn port(text: &str) -> Result<u16, String> {
    number(text, 1..=65_535)
        .map(|port| port as u16)
        .map_err(|_| "must be a port from 1 to 65535".to_owned())
}

/// The peer port that belongs to a client port when none is given.
pub fn peer_port_of(client_port: u16) -> Result<u16, String> {
    client_port.checked_add(PEER_PORT_OFFSET).ok_or_else(|| {
        format!(
            "the peer port would be {client_port} + {PEER_PORT_OFFSET}, above 65535: \
             choose a port up to {} or give the peer port",
            u16::MAX - PEER_PORT_OFFSET
        )
    })
}

/// A number of bytes with one of Redis's units (`k` is 1,000, `kb` is 1,024), within `range`.
pub fn size(text: &str, range: RangeInclusive<u64>) -> Result<usize, String> {
    bytes(text).filter(|size| range.contains(size)).map(|size| size as usize).ok_or_else(|| {
        format!(
            "must be a size such as 64mb (units k, kb, m, mb, g, gb), from {} to {}",
            shown(*range.start()),
            shown(*range.end())
        )
    })
}

/// `yes` or `no`, as Redis writes them.
pub fn yes_no(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err("must be yes or no".to_owned()),
    }
}

/// A size as people write it.
fn shown(size: u64) -> String {
    match size {
        0 => "0".to_owned(),
        size if size % (1 << 30) == 0 => format!("{}gb", size >> 30),
        size if size % (1 << 20) == 0 => format!("{}mb", size >> 20),
        size => size.to_string(),
    }
}

/// The name of a cluster or zone.
pub fn name(text: &str) -> Result<String, String> {
    let legal = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    if !text.is_empty() && text.len() <= NAME_SIZE_MAX && text.chars().all(legal) {
        return Ok(text.to_owned());
    }
    Err(format!("must be 1 to {NAME_SIZE_MAX} letters, digits, '-', '_' or '.'"))
}

/// A host name or an IP address; an IPv6 address may stand in brackets.
pub fn host(text: &str) -> Result<String, String> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    if bare.parse::<std::net::Ipv6Addr>().is_ok() {
        return Ok(bare.to_owned());
    }
    name(text).map_err(|_| "must be a host name or an IP address".to_owned())
}

/// How `--members` is written.
const MEMBER_FORM: &str = "must be ID=HOST:PORT, with @PEERPORT, ;zone=NAME and ;weight=NUMBER \
                           after it if wanted, members separated by commas";

/// The members, in the order of their ids. An entry without an id has its place, from 1.
pub fn members(text: &str) -> Result<Vec<Member>, String> {
    let entries = text.split(',').map(str::trim);
    let mut members: Vec<Member> = entries
        .zip(1u16..)
        .map(|(entry, place)| {
            member(entry, place).map_err(|why| format!("in {entry:?}: {why}; {MEMBER_FORM}"))
        })
        .collect::<Result<_, _>>()?;
    members.sort_by_key(|member| member.node);
    for (place, member) in members.iter().enumerate() {
        for other in &members[..place] {
            if other.node == member.node {
                return Err(format!("two members have the id {}", member.node.0));
            }
            if other.host == member.host && other.client_port == member.client_port {
                return Err(format!("two members are {}:{}", member.host, member.client_port));
            }
        }
    }
    if members.iter().all(|member| member.weight == 0) {
        return Err("at least one member must have a weight above 0".to_owned());
    }
    Ok(members)
}

fn member(entry: &str, place: u16) -> Result<Member, String> {
    let mut parts = entry.split(';').map(str::trim);
    let address = parts.next().unwrap_or_default();
    let (id, address) = match address.split_once('=') {
        None => (place, address),
        Some((id, address)) => {
            let id = number(id, 1..=65_535).map_err(|why| format!("the id {why}"))?;
            (id as u16, address)
        }
    };
    let (address, peer_port) = match address.split_once('@') {
        None => (address, None),
        Some((address, port)) => (address, Some(port)),
    };
    let (host_text, port_text) = address.rsplit_once(':').ok_or("there is no port")?;
    let client_port = port(port_text).map_err(|why| format!("the port {why}"))?;
    let mut member = Member::new(NodeId(id), host(host_text)?, client_port);
    member.peer_port = match peer_port {
        Some(text) => port(text).map_err(|why| format!("the peer port {why}"))?,
        None => peer_port_of(client_port)?,
    };
    for option in parts {
        match option.split_once('=') {
            Some(("zone", zone)) => {
                member.zone = name(zone).map_err(|why| format!("the zone {why}"))?;
            }
            Some(("weight", weight)) => {
                let weight =
                    number(weight, 0..=1_000).map_err(|why| format!("the weight {why}"))?;
                member.weight = weight as u32;
            }
            _ => return Err(format!("{option:?} is neither zone=NAME nor weight=NUMBER")),
        }
    }
    Ok(member)
}

/// A member as `--members` writes it.
pub fn member_text(member: &Member) -> String {
    let Member { node, host, client_port, peer_port, zone, weight, .. } = member;
    let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
    format!("{}={host}:{client_port}@{peer_port};zone={zone};weight={weight}", node.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_the_units_of_redis() {
        for (text, expected) in [
            ("0", 0),
            ("17", 17),
            ("1b", 1),
            ("1k", 1_000),
            ("1KB", 1_024),
            ("2m", 2_000_000),
            ("2Mb", 2 << 20),
            ("1g", 1_000_000_000),
            ("1gb", 1 << 30),
        ] {
            assert_eq!(bytes(text), Some(expected), "{text}");
        }
        for text in ["", "kb", "1x", "-1", "1.5mb", "1 mb", "99999999999gb"] {
            assert_eq!(bytes(text), None, "{text}");
        }
        let refused = size("1kb", 1 << 20..=512 << 20).unwrap_err();
        assert!(refused.ends_with("from 1mb to 512mb"), "{refused}");
    }

    #[test]
    fn members_in_all_their_forms() {
        let list =
            members("3=c:1@2;zone=z;weight=4, 1=10.0.0.1:6379,2=[::1]:6380;weight=0").unwrap();
        let shown: Vec<String> = list.iter().map(member_text).collect();
        assert_eq!(
            shown,
            [
                "1=10.0.0.1:6379@16379;zone=default;weight=1",
                "2=[::1]:6380@16380;zone=default;weight=0",
                "3=c:1@2;zone=z;weight=4",
            ]
        );
        assert_eq!(members(&shown.join(",")).unwrap(), list);
        let by_place = members("a:6379,b:6379").unwrap();
        assert_eq!(by_place.iter().map(|one| one.node.0).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(by_place[1].name, "n2");
    }

    #[test]
    fn members_that_are_none() {
        for (text, why) in [
            ("", "there is no port"),
            ("1=a", "there is no port"),
            ("0=a:1", "the id must be a whole number from 1"),
            ("1=a:0", "the port must be a port"),
            ("1=a:60000", "the peer port would be 60000 + 10000"),
            ("1=a:1@x", "the peer port must be a port"),
            ("1=a b:1", "must be a host name"),
            ("1=a:1;zone=", "the zone must be"),
            ("1=a:1;colour=red", "neither zone=NAME nor weight=NUMBER"),
            ("1=a:1;weight=1001", "the weight must be"),
            ("1=a:1,1=b:1", "two members have the id 1"),
            ("1=a:1,2=a:1", "two members are a:1"),
            ("1=a:1;weight=0", "at least one member"),
        ] {
            let refused = members(text).unwrap_err();
            assert!(refused.contains(why), "{text}: {refused}");
        }
    }
}

//! Ports of well-known services. Most containers have no `/etc/services`, and need none.

use super::NameError;

/// Names of services with their ports, from IANA's registry; aliases are common names.
const SERVICES: &[(&str, u16)] = &[
    ("amqp", 5672),
    ("amqps", 5671),
    ("dns", 53),
    ("domain", 53),
    ("domain-s", 853),
    ("echo", 7),
    ("etcd-client", 2379),
    ("ftp", 21),
    ("ftps", 990),
    ("git", 9418),
    ("http", 80),
    ("http-alt", 8080),
    ("https", 443),
    ("imap", 143),
    ("imaps", 993),
    ("kafka", 9092),
    ("ldap", 389),
    ("ldaps", 636),
    ("memcache", 11211),
    ("mongodb", 27017),
    ("mqtt", 1883),
    ("ms-sql-s", 1433),
    ("mysql", 3306),
    ("nats", 4222),
    ("nfs", 2049),
    ("ntp", 123),
    ("pop3", 110),
    ("pop3s", 995),
    ("postgres", 5432),
    ("postgresql", 5432),
    ("redis", 6379),
    ("secure-mqtt", 8883),
    ("sip", 5060),
    ("smtp", 25),
    ("snmp", 161),
    ("ssh", 22),
    ("submission", 587),
    ("submissions", 465),
    ("syslog", 514),
    ("telnet", 23),
    ("tftp", 69),
];

/// The port of a service: in digits, or of a well-known name.
pub(super) fn port(service: Option<&str>, numeric: bool) -> Result<u16, NameError> {
    let service = service.unwrap_or_default();
    if service.is_empty() {
        return Ok(0);
    }
    if service.bytes().all(|byte| byte.is_ascii_digit()) {
        return service.parse().map_err(|_| NameError::NoService);
    }
    let known = SERVICES.binary_search_by_key(&service, |(name, _)| name);
    match known {
        Ok(place) if !numeric => Ok(SERVICES[place].1),
        _ => Err(NameError::NoService),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_digits_or_known_names() {
        assert!(SERVICES.is_sorted_by(|a, b| a.0 < b.0));
        for (name, number) in SERVICES {
            assert_eq!(port(Some(name), false), Ok(*number));
            assert_eq!(port(Some(name), true), Err(NameError::NoService));
        }
        assert_eq!(port(Some("8080"), true), Ok(8080));
        assert_eq!((port(None, true), port(Some(""), false)), (Ok(0), Ok(0)));
        for bad in ["65536", "+80", "-1", "nonsense", "HTTP "] {
            assert_eq!(port(Some(bad), false), Err(NameError::NoService), "{bad}");
        }
    }
}

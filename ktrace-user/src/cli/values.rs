//! Values of options, as people write them.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use ktrace_common::MAX_RINGS;

pub fn ratio(text: &str) -> Result<f64, String> {
    let ratio = text.parse::<f64>().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
    ratio.ok_or_else(|| "not a number from 0 to 1".to_owned())
}

/// Of one core; several cores are more than 1.
pub fn share(text: &str) -> Result<f64, String> {
    let share = match text.strip_suffix('%') {
        Some(percent) => percent.trim().parse::<f64>().map(|percent| percent / 100.0),
        None => text.parse(),
    };
    let share = share.ok().filter(|share| (0.001..=1024.0).contains(share));
    share.ok_or_else(|| "not a share of a core such as 0.2 or 20%".to_owned())
}

/// A duration with its unit, such as 500ms.
pub fn duration(text: &str) -> Result<Duration, String> {
    let duration = text.parse::<jiff::SignedDuration>().ok().and_then(|duration| duration.try_into().ok());
    duration.ok_or_else(|| "not a duration such as 500ms, 1.5s or 2m".to_owned())
}

pub fn rings(text: &str) -> Result<usize, String> {
    let number = text.parse::<usize>().ok().filter(|number| (1..=MAX_RINGS).contains(number));
    number.filter(|number| number.is_power_of_two()).ok_or_else(|| "not 1, 2, 4, 8, 16 or 32".to_owned())
}

pub fn url(text: &str) -> Result<String, String> {
    let known = text.starts_with("http://") || text.starts_with("https://");
    known.then(|| text.to_owned()).ok_or_else(|| "must begin with http:// or https://".to_owned())
}

pub fn pair(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(key, name)| !key.is_empty() && !name.is_empty());
    pair.map(|(key, name)| (key.to_owned(), name.to_owned()))
        .ok_or_else(|| "not of the form KEY=NAME".to_owned())
}

/// A single address is a network of its own.
pub fn network(text: &str) -> Result<IpNet, String> {
    let network = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    network.ok_or_else(|| "not a network such as 10.1.0.0/16, nor an address".to_owned())
}

pub fn bytes(text: &str) -> Result<usize, String> {
    let (digits, unit) = match text.strip_suffix(['K', 'k']) {
        Some(digits) => (digits, 1 << 10),
        None => match text.strip_suffix(['G', 'g']) {
            Some(digits) => (digits, 1 << 30),
            None => text.strip_suffix(['M', 'm']).map_or((text, 1), |digits| (digits, 1 << 20)),
        },
    };
    let bytes = digits.parse::<usize>().ok().and_then(|number| number.checked_mul(unit));
    bytes.filter(|bytes| *bytes > 0).ok_or_else(|| "not a size such as 65536, 512K or 16M".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(bytes("4096"), Ok(4096));
        assert_eq!(bytes("512K"), Ok(512 << 10));
        assert_eq!(bytes("16M"), Ok(16 << 20));
        assert_eq!(bytes("1G"), Ok(1 << 30));
        for wrong in ["", "0", "4T", "99999999999999999999M", "-1", "K"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn shares_of_a_core() {
        assert_eq!((share("0.2"), share("150%")), (Ok(0.2), Ok(1.5)));
        for wrong in ["", "0", "-1", "NaN", "%", "20 percent", "inf"] {
            assert!(share(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn durations() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for wrong in ["", "500", "-1s", "soon", "1 lightyear", "99999999999999999999s"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn networks() {
        for (text, parsed) in
            [("10.1.0.0/16", "10.1.0.0/16"), ("10.1.2.3", "10.1.2.3/32"), ("fd00::/8", "fd00::/8")]
        {
            assert_eq!(network(text).unwrap().to_string(), parsed);
        }
        assert!(network("10.1.0.0/33").is_err() && network("host").is_err());
    }

    #[test]
    fn ratios() {
        assert_eq!(ratio("0.25"), Ok(0.25));
        for wrong in ["", "2", "-0.1", "NaN", "10%"] {
            assert!(ratio(wrong).is_err(), "{wrong}");
        }
    }
}

//! What the system says of this process and this machine, read from `/proc`.
//!
//! What cannot be read is 0 or `unknown`: nobody's request fails for a number in a report.

use std::fs;

/// Clock ticks in `/proc/self/stat`: Linux promises programs this rate, whatever its own is.
const TICKS_PER_SECOND: f64 = 100.0;

/// A file of `/proc` whose lines are `Name:   number kB`.
fn kilobytes(file: &str, name: &str) -> u64 {
    let text = fs::read_to_string(file).unwrap_or_default();
    field(&text, name).unwrap_or(0) * 1_024
}

fn field(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// Bytes of memory that are really in use by this process.
pub(super) fn resident() -> u64 {
    kilobytes("/proc/self/status", "VmRSS")
}

/// The most that [`resident`] ever was.
pub(super) fn resident_peak() -> u64 {
    kilobytes("/proc/self/status", "VmHWM")
}

/// Bytes of memory that the machine has.
pub(super) fn machine_memory() -> u64 {
    kilobytes("/proc/meminfo", "MemTotal")
}

/// Seconds of processor time that this process spent in the system and in itself.
pub(super) fn processor_time() -> (f64, f64) {
    let text = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    ticks(&text).map_or((0.0, 0.0), |(user, system)| {
        (system as f64 / TICKS_PER_SECOND, user as f64 / TICKS_PER_SECOND)
    })
}

/// Ticks in itself and in the system.
fn ticks(stat: &str) -> Option<(u64, u64)> {
    // The program's name stands in parentheses and may hold anything, so count from the last.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// The system's name and version, as `uname -srm` prints them.
pub(super) fn system() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = match release.trim() {
        "" => "unknown",
        release => release,
    };
    format!("Linux {release} {}", std::env::consts::ARCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_fields_are_found() {
        assert_eq!(field("VmPeak:\t  9 kB\nVmRSS:\t  120 kB\n", "VmRSS"), Some(120));
        assert_eq!(field("VmRSSX: 1 kB\n", "VmRSS"), None);
        let stat = "12 (a) b) R 1 12 12 0 -1 4194304 90 0 0 0 17 5 0 0 20 0 1 0 9 8 7";
        assert_eq!(ticks(stat), Some((17, 5)));
        assert_eq!(ticks("nonsense"), None);
    }

    #[test]
    fn this_process_has_memory() {
        assert!(resident() > 0 && resident_peak() >= resident() / 2);
        assert!(machine_memory() > resident());
        assert!(system().starts_with("Linux "));
    }
}

//! When to try again: exponential back-off with jitter, or when the server says.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::failure::{Failure, Kind, Stop};
use super::watch::Watch;

const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(30);
/// A server that asks for more is taken at its word by giving up, and its wish is told to the user.
const LONGEST_ASKED: Duration = Duration::from_secs(120);

/// Counts failures in a row.
pub(super) struct Retry {
    failures: u32,
    allowed: u32,
}

impl Retry {
    pub(super) fn new(allowed: u32) -> Self {
        Self {
            failures: 0,
            allowed,
        }
    }

    /// Something came through: the line is alive.
    pub(super) fn progressed(&mut self) {
        self.failures = 0;
    }

    /// Waits before the next attempt, or gives `failure` back when there should be none.
    pub(super) fn wait(
        &mut self,
        mut failure: Failure,
        watch: &mut Watch,
        mut beat: impl FnMut(),
    ) -> Result<(), Stop> {
        let asked = match failure.kind {
            Kind::Broken => None,
            Kind::Busy(asked) => asked,
            Kind::Refused | Kind::Hidden | Kind::Missing => return Err(failure.into()),
        };
        if let Some(asked) = asked.filter(|&a| a > LONGEST_ASKED) {
            failure.remedy = format!(
                "the server asks to wait {} s: try again then",
                asked.as_secs()
            );
            return Err(failure.into());
        }
        if self.failures >= self.allowed {
            if self.failures > 0 {
                failure.cause = format!("{}, {} times in a row", failure.cause, self.failures + 1);
            }
            return Err(failure.into());
        }
        let wait = asked.unwrap_or_else(|| back_off(self.failures, random()));
        self.failures += 1;
        log::info!(
            "{} from {}: trying again in {:.1} s",
            failure.cause,
            failure.host,
            wait.as_secs_f32()
        );
        // In slices, so that those who wait for the lock see that this process lives.
        let mut left = wait;
        while !left.is_zero() {
            let slice = left.min(Duration::from_secs(1));
            beat();
            watch.pause(slice)?;
            left -= slice;
        }
        Ok(())
    }
}

/// Half to all of the doubled wait, so that many clients do not come back at the same moment.
fn back_off(failures: u32, random: u64) -> Duration {
    let longest = FIRST.saturating_mul(1 << failures.min(16)).min(LONGEST);
    let share = (random % 1024) as u32;
    longest / 2 + longest / 2 * share / 1024
}

fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// `Retry-After`: seconds, or a date.
pub(super) fn retry_after(value: &str) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs();
    Some(Duration::from_secs(http_date(value)?.saturating_sub(now)))
}

/// Seconds since 1970 of `Sun, 06 Nov 1994 08:49:37 GMT`, the one form that servers may send.
fn http_date(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let mut words = text.split_once(", ")?.1.split(' ');
    let day: u64 = words.next()?.parse().ok()?;
    let name = words.next()?;
    let month = MONTHS.iter().position(|m| *m == name)? as u64 + 1;
    let year: u64 = words.next()?.parse().ok()?;
    let mut clock = words.next()?.split(':').map(|n| n.parse::<u64>().ok());
    let (h, m, s) = (clock.next()??, clock.next()??, clock.next()??);
    if !(1970..=9999).contains(&year) || !(1..=31).contains(&day) || h > 23 || m > 59 || s > 60 {
        return None;
    }
    // Days from the civil date, with the year beginning in March:
    // https://howardhinnant.github.io/date_algorithms.html#days_from_civil
    let (y, m0) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days = y * 365 + y / 4 - y / 100 + y / 400 + (153 * m0 + 2) / 5 + day - 1 - 719_468;
    Some(days * 86_400 + h * 3600 + m * 60 + s)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_stay_within_bounds() {
        for (failures, least, most) in [
            (0, 125, 250),
            (1, 250, 500),
            (4, 2000, 4000),
            (60, 15_000, 30_000),
        ] {
            for random in [0, 511, 1023, u64::MAX] {
                let wait = back_off(failures, random).as_millis();
                assert!(
                    (least..=most).contains(&wait),
                    "{failures} {random}: {wait}"
                );
            }
        }
    }

    #[test]
    fn retry_after_in_both_forms() {
        assert_eq!(retry_after(" 7 "), Some(Duration::from_secs(7)));
        assert_eq!(
            http_date("Sun, 06 Nov 1994 08:49:37 GMT"),
            Some(784_111_777)
        );
        assert_eq!(
            http_date("Thu, 29 Feb 2024 00:00:00 GMT"),
            Some(1_709_164_800)
        );
        assert_eq!(http_date("Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
        // The past means now.
        assert_eq!(
            retry_after("Sun, 06 Nov 1994 08:49:37 GMT"),
            Some(Duration::ZERO)
        );
        for bad in [
            "",
            "soon",
            "-1",
            "Sun, 06 Nov",
            "Sun, 06 Foo 1994 08:49:37 GMT",
            "Sun, 99 Nov 1994 08:49:37 GMT",
        ] {
            assert_eq!(retry_after(bad), None, "{bad}");
        }
    }
}

//! Times of day, in UTC: when a server is restarted, and when changes may be made.

use crate::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

const MINUTE_MS: i64 = 60_000;
const DAY_MINUTES: u16 = 24 * 60;
const DAY_MS: i64 = DAY_MINUTES as i64 * MINUTE_MS;
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// Why a time is refused; the text says what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ScheduleError(String);

/// A time of day: `03:30`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimeOfDay {
    minutes: u16,
}

impl TimeOfDay {
    /// The next moment at this time of day, after `now`.
    #[must_use]
    pub fn next_after(self, now: Timestamp) -> Timestamp {
        let today = now.as_ms().div_euclid(DAY_MS) * DAY_MS;
        let at = today + i64::from(self.minutes) * MINUTE_MS;
        Timestamp::from_ms(if at > now.as_ms() { at } else { at + DAY_MS })
    }
}

impl fmt::Display for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.minutes / 60, self.minutes % 60)
    }
}

impl FromStr for TimeOfDay {
    type Err = ScheduleError;
    fn from_str(text: &str) -> Result<Self, ScheduleError> {
        let two = |part: &str| (part.len() == 2 && part.bytes().all(|b| b.is_ascii_digit())).then(|| part.parse().ok());
        let read = || {
            let (hours, minutes) = text.split_once(':')?;
            let (hours, minutes): (u16, u16) = (two(hours)??, two(minutes)??);
            (hours < 24 && minutes < 60).then_some(Self { minutes: hours * 60 + minutes })
        };
        read().ok_or_else(|| ScheduleError(format!("`{}` is no time such as `03:30`", crate::name::printable(text))))
    }
}

/// When changes may be made: `02:00-05:00`, `sat,sun 22:00-04:00`. One that ends before it begins lasts over midnight, and
/// its days are those on which it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpdateWindow {
    /// A bit for each day, Monday first.
    days: u8,
    from: TimeOfDay,
    to: TimeOfDay,
}

impl UpdateWindow {
    /// Whether changes may be made at `now`.
    #[must_use]
    pub fn is_open(self, now: Timestamp) -> bool {
        let day = now.as_ms().div_euclid(DAY_MS);
        // What began yesterday may last until today.
        [day - 1, day].into_iter().any(|day| {
            let (from, to) = self.on(day);
            self.has(day) && (from..to).contains(&now.as_ms())
        })
    }

    /// When changes may be made next: `now` while they may.
    #[must_use]
    pub fn next_open(self, now: Timestamp) -> Timestamp {
        if self.is_open(now) {
            return now;
        }
        let today = now.as_ms().div_euclid(DAY_MS);
        let begins = (today..=today + 7).filter(|day| self.has(*day)).map(|day| self.on(day).0);
        let next = begins.into_iter().find(|begin| *begin > now.as_ms());
        Timestamp::from_ms(next.expect("a window has a day, and every day comes within a week"))
    }

    fn has(self, day: i64) -> bool {
        // The first of January 1970 was a Thursday.
        self.days & (1 << (day + 3).rem_euclid(7)) != 0
    }

    fn on(self, day: i64) -> (i64, i64) {
        let at = |time: TimeOfDay| day * DAY_MS + i64::from(time.minutes) * MINUTE_MS;
        let over_midnight = if self.to <= self.from { DAY_MS } else { 0 };
        (at(self.from), at(self.to) + over_midnight)
    }
}

impl fmt::Display for UpdateWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let days: Vec<_> = (0..7).filter(|day| self.days & (1 << day) != 0).map(|day| DAYS[day]).collect();
        if days.len() < 7 {
            write!(f, "{} ", days.join(","))?;
        }
        write!(f, "{}-{}", self.from, self.to)
    }
}

impl FromStr for UpdateWindow {
    type Err = ScheduleError;
    fn from_str(text: &str) -> Result<Self, ScheduleError> {
        let wrong = || {
            let shown = crate::name::printable(text);
            ScheduleError(format!("`{shown}` is no window such as `02:00-05:00` or `sat,sun 22:00-04:00`"))
        };
        let (days, times) = match text.trim().rsplit_once(' ') {
            Some((days, times)) => (days.trim(), times),
            None => ("mon,tue,wed,thu,fri,sat,sun", text.trim()),
        };
        let bit = |name: &str| DAYS.iter().position(|day| *day == name.trim()).map(|day| 1_u8 << day);
        let days = days.split(',').try_fold(0, |days, name| Some(days | bit(name)?)).ok_or_else(wrong)?;
        let (from, to) = times.split_once('-').ok_or_else(wrong)?;
        let (from, to) = (from.parse().map_err(|_| wrong())?, to.parse().map_err(|_| wrong())?);
        Ok(Self { days, from, to })
    }
}

macro_rules! as_text {
    ($($name:ident)*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}

as_text!(TimeOfDay UpdateWindow);

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        Timestamp::parse(text).unwrap()
    }

    #[test]
    fn a_time_of_day_comes_every_day() {
        let time: TimeOfDay = "03:30".parse().unwrap();
        assert_eq!(time.next_after(at("2026-11-22T03:29:59Z")), at("2026-11-22T03:30:00Z"));
        assert_eq!(time.next_after(at("2026-11-22T03:30:00Z")), at("2026-11-23T03:30:00Z"));
        for bad in ["", "3:30", "24:00", "12:60", "12", "1a:00", "12:00:00", "+1:00"] {
            assert!(bad.parse::<TimeOfDay>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_window_may_last_over_midnight_and_belongs_to_the_day_on_which_it_begins() {
        // The 22nd of November 2026 is a Sunday.
        let window: UpdateWindow = "sun 22:00-04:00".parse().unwrap();
        for (now, open) in [
            ("2026-11-22T21:59:59Z", false),
            ("2026-11-22T22:00:00Z", true),
            ("2026-11-23T03:59:59Z", true),
            ("2026-11-23T04:00:00Z", false),
            ("2026-11-23T22:00:00Z", false),
            ("2026-11-22T01:00:00Z", false),
        ] {
            assert_eq!(window.is_open(at(now)), open, "{now}");
        }
        assert_eq!(window.next_open(at("2026-11-23T04:00:00Z")), at("2026-11-29T22:00:00Z"));
        assert_eq!(window.next_open(at("2026-11-22T23:00:00Z")), at("2026-11-22T23:00:00Z"));
        assert_eq!(window.next_open(at("2026-11-22T12:00:00Z")), at("2026-11-22T22:00:00Z"));
    }

    #[test]
    fn a_window_is_read_as_it_is_written() {
        for text in ["02:00-05:00", "sat,sun 22:00-04:00", "mon 00:00-00:00"] {
            assert_eq!(text.parse::<UpdateWindow>().unwrap().to_string(), text);
        }
        for bad in ["", "02:00", "caturday 02:00-05:00", "sat 2-5", "-", " 02:00-", "sat,, 02:00-03:00"] {
            assert!(bad.parse::<UpdateWindow>().is_err(), "{bad}");
        }
        let whole: UpdateWindow = "mon 00:00-00:00".parse().unwrap();
        assert!(whole.is_open(at("2026-11-23T13:00:00Z")) && !whole.is_open(at("2026-11-24T00:00:00Z")));
    }
}

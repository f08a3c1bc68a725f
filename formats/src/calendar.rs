//! The Gregorian calendar in UTC: days counted from 1970-01-01. No clock and no time zone.

/// Seconds of a day.
pub(crate) const DAY: i64 = 86_400;

/// Days from 0000-03-01 to 1970-01-01. Years are counted from March, so that a leap day is the last
/// of its year.
const MARCH_0: i64 = 719_468;

/// Days from 1970-01-01 to a day of the calendar. A day past its month's end runs on into the next.
pub(crate) fn days_of(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    // months from March on are 31, 30, 31, 30, 31 days long, again and again: 153 in five
    365 * year + leap_days + (153 * month + 2) / 5 + (day - 1) - MARCH_0
}

/// Year, month and day of a day counted from 1970-01-01.
pub(crate) fn civil_of(days: i64) -> (i64, i64, i64) {
    let days = days.saturating_add(MARCH_0);
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_day_there_and_back() {
        for day in days_of(-1, 1, 1)..=days_of(10_000, 12, 31) {
            let (year, month, of_month) = civil_of(day);
            assert_eq!(days_of(year, month, of_month), day);
        }
        assert_eq!(civil_of(0), (1970, 1, 1));
        assert_eq!(civil_of(19_782), (2024, 2, 29));
        assert_eq!(days_of(2026, 2, 31), days_of(2026, 3, 3));
        // what a hostile file may say costs no time
        let _ = (civil_of(i64::MAX), civil_of(i64::MIN));
    }
}

//! A moment as `ls -l` shows it, in UTC: there is no other zone in here.

const DAY: i64 = 86400;
/// Moments that are further away are shown with their year.
const HALF_A_YEAR: i64 = 183 * DAY;
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Year, month from 0 and day from 1 of a day that is counted from 1970: Gregorian, by eras of 400 years
/// that begin in March.
fn date(days: i64) -> (i64, usize, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day = days.rem_euclid(146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let of_month = of_year - (153 * month + 2) / 5 + 1;
    let (month, early) = if month < 10 { (month + 2, 0) } else { (month - 10, 1) };
    (year + era * 400 + early, month as usize, of_month)
}

/// `Nov 22 03:14`, or `Nov 22  2024` when that is long before or after `now`. Seconds since 1970.
pub fn short(at: i64, now: i64) -> String {
    let (year, month, day) = date(at.div_euclid(DAY));
    let second = at.rem_euclid(DAY);
    let month = MONTHS.get(month).copied().unwrap_or("???");
    if (now - at).abs() < HALF_A_YEAR {
        format!("{month} {day:>2} {:02}:{:02}", second / 3600, second / 60 % 60)
    } else {
        format!("{month} {day:>2}  {year:>4}")
    }
}

/// Seconds since 1970.
pub fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs() as i64)
}

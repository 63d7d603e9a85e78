//! Searches a made-up log by regular expressions: automata driven byte by byte.

use regex::Regex;

fn log(lines: u32) -> String {
    let mut state = 7u32;
    let mut next = |n: u32| {
        state = state.wrapping_mul(1_103_515_245).wrapping_add(12345);
        (state >> 8) % n
    };
    let mut text = String::new();
    for _ in 0..lines {
        let level = ["INFO", "WARN", "ERROR", "debug"][next(4) as usize];
        let (a, b, c) = (next(256), next(256), next(100_000));
        let path =
            ["/index.html", "/img/logo.png", "/api/v1/users/42", "/søk?q=fjord"][next(4) as usize];
        let (hour, minute, millis) = (next(24), next(60), next(1000));
        text.push_str(&format!(
            "2024-{:02}-{:02}T{hour:02}:{minute:02} {level} 10.0.{a}.{b} GET {path} {c} bytes {millis}ms\n",
            1 + next(12),
            1 + next(28),
        ));
    }
    text
}

fn main() {
    let lines = std::env::args().nth(1).map_or(20_000, |n| n.parse().expect("a number"));
    let text = log(lines);
    for pattern in [
        r"ERROR .* (\d+) bytes",
        r"(?i)(info|debug) 10\.0\.(1\d\d|2[0-4]\d)\.\d+",
        r"/(img|api)/[\w/]+(\.png)? \d{4,5} bytes",
        r"\b\d{4}-(0[1-6])-\d\dT(0\d|1[0-2]):",
        r"s\p{L}k\?q=\p{Ll}+",
        r"[^ ]+ms$",
        r"(9|8)+ms\n2024",
        r"([0-9a-z]+[./-])+[a-z]{3,4} ",
    ] {
        let regex = Regex::new(pattern).expect("a sound pattern");
        let (mut count, mut sum) = (0u32, 0u64);
        for found in regex.captures_iter(&text) {
            count += 1;
            let last = found.iter().flatten().last().map_or(0, |group| group.end());
            sum = sum.wrapping_mul(31).wrapping_add(last as u64);
        }
        println!("{pattern}: {count} {sum:016x}");
    }
}

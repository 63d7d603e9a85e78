//! Writes records as JSON, reads them back: allocation, small copies, maps, formatting and parsing of
//! numbers and text.

use serde_json::{Map, Value, json};

fn records(count: u64) -> Vec<Value> {
    let mut state = 99u64;
    let mut next = |n: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) % n
    };
    let mut one = |id| {
        let scores: Vec<f64> = (0..next(8)).map(|_| next(1 << 30) as f64 / 1024.0).collect();
        let mut tags = Map::new();
        for n in 0..next(5) {
            let tag = (next(3) > 0).then(|| next(1000) as i64 - 500);
            tags.insert(format!("tag{n}"), tag.into());
        }
        let name = format!("näme \"{}\"\n\u{1f600}{}", next(100_000), next(9));
        json!({"id": id * 7919, "name": name, "scores": scores, "tags": tags, "active": next(2) == 0})
    };
    (0..count).map(&mut one).collect()
}

/// Sum of the numbers and of the lengths of all text in a value.
fn weigh(value: &Value) -> f64 {
    match value {
        Value::Number(number) => number.as_f64().unwrap_or(0.0),
        Value::String(text) => text.len() as f64,
        Value::Array(items) => items.iter().map(weigh).sum(),
        Value::Object(fields) => {
            fields.iter().map(|(name, field)| name.len() as f64 + weigh(field)).sum()
        }
        Value::Bool(_) | Value::Null => 1.0,
    }
}

fn main() {
    let rounds = std::env::args().nth(1).map_or(40, |n| n.parse().expect("a number"));
    let mut value = Value::Array(records(3000));
    let mut weight = 0.0;
    for round in 0..rounds {
        let text = value.to_string();
        let back: Value = serde_json::from_str(&text).expect("what was written can be read");
        assert!(back == value);
        weight += weigh(&back);
        value[round % 3000]["scores"] = json!([round as f64 / 3.0, text.len()]);
        if round + 1 == rounds {
            println!("{} bytes, pretty {}", text.len(), format!("{value:#}").len());
        }
    }
    println!("{weight}");
}

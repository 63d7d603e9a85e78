//! The plot: a bar for each program and peer, processor time as a share of wasmtime's.

use std::fmt::Write as _;

use crate::measure::Row;
use crate::peer::Peer;
use crate::report::{ratio, whole_cpu};

const PEERS: [(Peer, &str, &str); 4] = [
    (Peer::Coracle, "#0b6e75", "Coracle"),
    (Peer::WasmtimeFastest, "#b9a7d6", "wasmtime, fastest settings"),
    (Peer::Wasmedge, "#e8b26b", "WasmEdge (LLVM)"),
    (Peer::Native, "#c4c8cc", "native"),
];
/// Pixels.
const LEFT: f64 = 110.0;
const WIDTH: f64 = 860.0;
const TOP: f64 = 64.0;
const BAR: f64 = 7.0;
const GAP: f64 = 8.0;
/// Pixels for a ratio of 1, and the greatest ratio that fits; longer bars are cut and say so.
const SCALE: f64 = 400.0;
const MOST: f64 = 1.7;

/// An SVG of the programs' whole-process processor time.
pub(crate) fn svg(rows: &[Row]) -> String {
    let group = BAR * PEERS.len() as f64 + GAP;
    let bottom = TOP + group * rows.len() as f64;
    let height = bottom + 40.0;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"11\">\n<rect width=\"{WIDTH}\" height=\"{height}\" \
         fill=\"white\"/>\n<text x=\"{LEFT}\" y=\"20\" font-size=\"14\">Processor time, whole process from \
         compiled code; wasmtime's defaults = 1, less is better</text>\n",
    );
    let mut x = LEFT;
    for (_, colour, label) in PEERS {
        let _ = writeln!(
            out,
            "<rect x=\"{x}\" y=\"34\" width=\"10\" height=\"10\" fill=\"{colour}\"/><text x=\"{}\" y=\"43\">{label}</text>",
            x + 14.0
        );
        x += 40.0 + 6.5 * label.len() as f64;
    }
    for tick in 0..=(MOST * 4.0) as u32 {
        let ratio = f64::from(tick) / 4.0;
        let x = LEFT + ratio * SCALE;
        let colour = if tick == 4 { "#333" } else { "#ddd" };
        let _ = writeln!(
            out,
            "<line x1=\"{x}\" x2=\"{x}\" y1=\"{}\" y2=\"{bottom}\" stroke=\"{colour}\"/><text x=\"{x}\" y=\"{}\" text-anchor=\"middle\">{ratio}</text>",
            TOP - 8.0,
            bottom + 16.0,
        );
    }
    for (n, row) in rows.iter().enumerate() {
        let top = TOP + group * n as f64;
        let _ = writeln!(
            out,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
            LEFT - 8.0,
            top + group / 2.0,
            row.name
        );
        for (k, (peer, colour, _)) in PEERS.into_iter().enumerate() {
            let Some(ratio) = ratio(row, whole_cpu, peer, Peer::Wasmtime) else { continue };
            let y = top + BAR * k as f64;
            let shown = ratio.min(MOST) * SCALE;
            let _ = writeln!(
                out,
                "<rect x=\"{LEFT}\" y=\"{y}\" width=\"{shown:.1}\" height=\"{}\" fill=\"{colour}\"/>",
                BAR - 1.0
            );
            if peer == Peer::Coracle || ratio > MOST {
                let _ = writeln!(
                    out,
                    "<text x=\"{:.1}\" y=\"{}\" font-size=\"9\">{ratio:.2}</text>",
                    LEFT + shown + 4.0,
                    y + BAR - 0.5
                );
            }
        }
    }
    out.push_str("</svg>\n");
    out
}

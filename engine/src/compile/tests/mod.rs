//! Tests of whole compilations: what the code looks like, what an image holds, what is refused.

mod golden;

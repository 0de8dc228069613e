//! A pair of programs for each other network namespace that is watched: an interface's index does not tell which it is
//! in, and before kernel 6.12 no helper does. Each is loaded when it is needed.

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;

use super::NEXT;
use crate::maps::{TAP_PROGRAMS, TAP_SLOT};

const EGRESS: u32 = 0;
const INGRESS: u32 = 1;

/// Notes the namespace and goes on to the tap itself.
#[inline(always)]
fn go_on(ctx: &TcContext, slot: u32, program: u32) -> i32 {
    if let Some(place) = TAP_SLOT.get_ptr_mut(0) {
        // SAFETY: this CPU's element, and soft interrupts are off until the next program is done; the programs that are
        // gone on to have the same type.
        unsafe {
            *place = slot;
            TAP_PROGRAMS.tail_call(ctx, program);
            *place = 0;
        }
    }
    NEXT
}

macro_rules! slots {
    ($($slot:literal $out:ident $in:ident;)*) => {$(
        #[classifier]
        fn $out(ctx: TcContext) -> i32 {
            go_on(&ctx, $slot, EGRESS)
        }

        #[classifier]
        fn $in(ctx: TcContext) -> i32 {
            go_on(&ctx, $slot, INGRESS)
        }
    )*};
}

slots! {
    1 spike_tap_out_1 spike_tap_in_1;
    2 spike_tap_out_2 spike_tap_in_2;
    3 spike_tap_out_3 spike_tap_in_3;
    4 spike_tap_out_4 spike_tap_in_4;
    5 spike_tap_out_5 spike_tap_in_5;
    6 spike_tap_out_6 spike_tap_in_6;
    7 spike_tap_out_7 spike_tap_in_7;
    8 spike_tap_out_8 spike_tap_in_8;
    9 spike_tap_out_9 spike_tap_in_9;
    10 spike_tap_out_10 spike_tap_in_10;
    11 spike_tap_out_11 spike_tap_in_11;
    12 spike_tap_out_12 spike_tap_in_12;
    13 spike_tap_out_13 spike_tap_in_13;
    14 spike_tap_out_14 spike_tap_in_14;
    15 spike_tap_out_15 spike_tap_in_15;
    16 spike_tap_out_16 spike_tap_in_16;
    17 spike_tap_out_17 spike_tap_in_17;
    18 spike_tap_out_18 spike_tap_in_18;
    19 spike_tap_out_19 spike_tap_in_19;
    20 spike_tap_out_20 spike_tap_in_20;
    21 spike_tap_out_21 spike_tap_in_21;
    22 spike_tap_out_22 spike_tap_in_22;
    23 spike_tap_out_23 spike_tap_in_23;
    24 spike_tap_out_24 spike_tap_in_24;
    25 spike_tap_out_25 spike_tap_in_25;
    26 spike_tap_out_26 spike_tap_in_26;
    27 spike_tap_out_27 spike_tap_in_27;
    28 spike_tap_out_28 spike_tap_in_28;
    29 spike_tap_out_29 spike_tap_in_29;
    30 spike_tap_out_30 spike_tap_in_30;
    31 spike_tap_out_31 spike_tap_in_31;
}

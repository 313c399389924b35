#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| tandem_feeds::fuzz::binance(data));

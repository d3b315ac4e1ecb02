//! Stand-ins for the keyed functions until they are written.

macro_rules! stand_ins {
    ($($room:ident: $($name:ident)*;)*) => {$(
        pub(super) mod $room {
            use crate::command::spec::Call;
            $(pub(in crate::command::rows) fn $name(call: &mut Call<'_, '_>) {
                call.reply.error("ERR not served by this version");
            })*
        }
    )*};
}

stand_ins! {
    string: get set setnx setex psetex getset getdel getex mget mset msetnx append strlen getrange
        setrange lcs;
    counter: incr incrby decr decrby incrbyfloat;
    key: del unlink exists touch r#type rename renamenx copy object memory;
    expiry: expire pexpire expireat pexpireat ttl pttl expiretime pexpiretime persist;
}

//! What can be typed.

/// Of the whole program.
pub(crate) const ALL: &str = "\
Usage: vdpa [ OPTIONS ] OBJECT { COMMAND | help }
where  OBJECT := { mgmtdev | dev }
       OPTIONS := { -n[o-nice-names] | -j[son] | -p[retty] }
";

/// Of `vdpa mgmtdev`.
pub(crate) const MGMTDEV: &str = "Usage: vdpa mgmtdev show [ MGMTDEV ]\n";

/// Of `vdpa dev`.
pub(crate) const DEV: &str = "\
Usage: vdpa dev show [ DEV ]
       vdpa dev add name NAME mgmtdev MGMTDEV [ device_features 0xBITS ]
           [ mac ADDRESS ] [ mtu BYTES ] [ max_vqp PAIRS ] [ peer DEV ]
           [ capacity SIZE ] [ block_size BYTES ] [ num_queues COUNT ]
       vdpa dev del DEV
       vdpa dev set name DEV mac ADDRESS
       vdpa dev move name DEV to DEV
       vdpa dev config show [ DEV ]
       vdpa dev vstats show DEV qidx INDEX
";

/// Of `vdpa dev config`.
pub(crate) const CONFIG: &str = "Usage: vdpa dev config show [ DEV ]\n";

/// Of `vdpa dev vstats`.
pub(crate) const VSTATS: &str = "Usage: vdpa dev vstats show DEV qidx INDEX\n";

/// A device to be made.
pub(crate) const ADD: &str = "vdpa dev add name NAME mgmtdev MGMTDEV [ ATTRIBUTE VALUE ]...";

/// A device to be changed.
pub(crate) const SET: &str = "vdpa dev set name DEV mac ADDRESS";

/// A device to be moved.
pub(crate) const MOVE: &str = "vdpa dev move name DEV to DEV";

/// A device to be deleted.
pub(crate) const DEL: &str = "vdpa dev del DEV";

/// The statistics of a queue.
pub(crate) const VSTATS_SHOW: &str = "vdpa dev vstats show DEV qidx INDEX";

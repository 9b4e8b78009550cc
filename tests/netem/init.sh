#!/bin/busybox sh
# The guest's first process: the host's files, read only, below a layer of memory, as a machine of its own;
# then the command that the host left in the shared folder.
set -e
export PATH=/bin
/bin/busybox mkdir -p /proc /sys /dev /host /top /root
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
for module in virtio_pci 9pnet_virtio 9p overlay; do modprobe "$module"; done

# What is written in the guest stays in its memory.
nine="trans=virtio,version=9p2000.L,msize=512000"
mount -t 9p -o "$nine,ro,cache=loose" host /host
mount -t tmpfs -o mode=755 top /top
mkdir /top/upper /top/work
mount -t overlay -o lowerdir=/host,upperdir=/top/upper,workdir=/top/work root /root

# The host's own proc, sys, dev and run are not the guest's.
for folder in proc sys dev; do mount --move "/$folder" "/root/$folder"; done
mount -t tmpfs -o mode=755 run /root/run
mkdir -p /root/dev/pts /root/dev/shm /root/run/shoal-guest /root/lib/modules
mount -t devpts -o ptmxmode=666 pts /root/dev/pts
mount -t tmpfs shm /root/dev/shm
mount -t 9p -o "$nine" share /root/run/shoal-guest
mount -t cgroup2 cgroup /root/sys/fs/cgroup
echo "+cpu +memory +pids" > /root/sys/fs/cgroup/cgroup.subtree_control

# The kernel loads what is asked of it, as on an installed machine.
. /root/run/shoal-guest/modules.sh # MODULES=the folder, as seen on the host
ln -sfn "$MODULES" "/root/lib/modules/$(uname -r)"
cp /bin/busybox /root/run/busybox
ln -s busybox /root/run/modprobe
echo /run/modprobe > /root/proc/sys/kernel/modprobe
echo "shoal: $(cut -d ' ' -f 1 /root/proc/uptime) s until the host's files are there"

# switch_root, not chroot: the programs that the kernel starts follow it.
exec switch_root /root /bin/sh /run/shoal-guest/command.sh

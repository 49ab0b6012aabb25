"""The templates that a new portal begins with; operators edit them. Not for: use at any later time."""

PRESEED = """\
# Debian, onto the whole disk, with SSH. The keys lie in /authorized_keys of the installer.
d-i debian-installer/locale string C.UTF-8
d-i keyboard-configuration/xkb-keymap select us
d-i netcfg/choose_interface select auto
d-i netcfg/hostname string $hostname
d-i netcfg/get_hostname string $hostname
d-i netcfg/get_domain string
d-i mirror/country string manual
d-i mirror/http/hostname string deb.debian.org
d-i mirror/http/directory string /debian
d-i mirror/http/proxy string
d-i clock-setup/utc boolean true
d-i time/zone string Etc/UTC
d-i passwd/root-login boolean false
d-i passwd/user-fullname string $user
d-i passwd/username string $user
d-i passwd/user-password-crypted password $password_hash
d-i partman-auto/disk string /dev/$disk
d-i partman-auto/method string regular
d-i partman-auto/choose_recipe select atomic
d-i partman-partitioning/confirm_write_new_label boolean true
d-i partman/choose_partition select finish
d-i partman/confirm boolean true
d-i partman/confirm_nooverwrite boolean true
tasksel tasksel/first multiselect standard, ssh-server
d-i pkgsel/include string qemu-guest-agent sudo
popularity-contest popularity-contest/participate boolean false
d-i grub-installer/only_debian boolean true
d-i grub-installer/bootdev string /dev/$disk
d-i preseed/late_command string \\
  install -d -m 700 /target/home/$user/.ssh; \\
  cp /authorized_keys /target/home/$user/.ssh/authorized_keys; \\
  in-target chown -R $user:$user /home/$user/.ssh; \\
  echo '$user ALL=(ALL) NOPASSWD:ALL' > /target/etc/sudoers.d/$user
d-i finish-install/reboot_in_progress note
d-i debian-installer/exit/poweroff boolean true
"""

KICKSTART = """\
# Fedora and its kin, onto the whole disk, with SSH.
text
lang en_US.UTF-8
keyboard us
timezone Etc/UTC --utc
network --bootproto=dhcp --hostname=$hostname
rootpw --lock
user --name=$user --groups=wheel --password=$password_hash --iscrypted
$ssh_keys
ignoredisk --only-use=$disk
clearpart --all --initlabel --drives=$disk
autopart --type=plain
bootloader --boot-drive=$disk
services --enabled=sshd
%packages
@core
qemu-guest-agent
%end
%post
echo '$user ALL=(ALL) NOPASSWD:ALL' > /etc/sudoers.d/$user
chmod 0440 /etc/sudoers.d/$user
%end
poweroff
"""

AUTOINSTALL = """\
#cloud-config
autoinstall:
  version: 1
  identity:
    hostname: "$hostname"
    username: "$user"
    password: "$password_hash"
  ssh:
    install-server: true
    allow-pw: false
    authorized-keys: $ssh_keys
  storage:
    layout:
      name: direct
  packages: [qemu-guest-agent]
  late-commands:
    - echo '$user ALL=(ALL) NOPASSWD:ALL' > /target/etc/sudoers.d/$user
    - chmod 0440 /target/etc/sudoers.d/$user
  shutdown: poweroff
"""

EXAMPLES = (
    ("Debian", "preseed", PRESEED),
    ("Fedora and its kin", "kickstart", KICKSTART),
    ("Ubuntu", "autoinstall", AUTOINSTALL),
)

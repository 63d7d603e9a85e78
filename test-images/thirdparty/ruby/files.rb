# Files as a real Ruby uses them, in the folder that is the argument; it is left as it was, but for
# `kept.txt`.
require "fileutils"
require "find"

Dir.chdir(ARGV.fetch(0))

def refused
  yield
  "no error"
rescue SystemCallError, IOError => error
  error.class
end

File.open("text.txt", "w") { |out| 1000.times { |n| out.puts "line #{n} äöü" } }
File.open("text.txt", "a") do |out|
  out.write "the end\n"
  puts "appending at #{out.pos.positive?}"
end
lines = File.readlines("text.txt", chomp: true)
puts "#{lines.size} lines, the last is #{lines.last}"

content = Random.new(7).bytes(1 << 20)
File.open("binary", "w+b") do |file|
  puts "written #{file.write(content)}"
  places = Random.new(8)
  1000.times do
    place = places.rand(content.size - 100)
    file.seek(place)
    raise "other content at #{place}" unless file.read(100) == content[place, 100]
  end
  file.seek(-5, IO::SEEK_END)
  puts "tail #{file.read == content[-5..]} #{file.pos}"
  file.truncate(100)
  puts "truncated #{file.size}"
  file.seek(200)
  file.write("!")
  file.flush
  file.fsync
  puts "pread #{file.pread(2, 199).inspect}"
end
rest = File.binread("binary")
puts "hole #{rest[0, 100] == content[0, 100]} #{rest[100...200].bytes.uniq} #{rest[200..]}"
File.open("binary", "ab") { |file| file.write("appended") }
puts "size #{File.size("binary")} #{IO.binread("binary", 4, 201)}"
File.truncate("binary", 3)
puts "size #{File.stat("binary").size}"

FileUtils.mkdir_p("tree/a/b/c")
["tree/one", "tree/a/zwei-ä", "tree/a/b/c/three"].each do |name|
  File.open(name, "wx") { |out| out.write(name) }
end
Find.find("tree").sort.each { |path| puts "find #{path} #{File.ftype(path)}" }
puts "glob #{Dir.glob("tree/**/*e*").sort}"
File.rename("tree/a/b", "tree/moved")
File.rename("tree/one", "tree/moved/c/three")
puts "replaced #{File.read("tree/moved/c/three")} #{Dir.children("tree").sort}"
IO.copy_stream("tree/moved/c/three", "copy")
puts "copied #{File.read("copy")} #{FileUtils.identical?("copy", "tree/moved/c/three")}"
File.link("copy", "hard")
puts "links #{File.stat("copy").nlink} #{File.identical?("copy", "hard")}"
File.symlink("tree/moved", "soft")
puts "soft #{File.readlink("soft")} #{File.lstat("soft").symlink?} #{Dir.children("soft")}"
File.utime(Time.at(1, 7, :nsec), Time.at(2, 9, :nsec), "copy")
stat = File.stat("hard")
puts "times #{stat.mtime.to_i} #{stat.mtime.nsec} #{stat.atime.to_i} #{stat.atime.nsec}"

Dir.mkdir("many")
2000.times { |n| FileUtils.touch(format("many/%05d", n)) }
names = Dir.children("many").sort
puts "many #{names.size} #{names.first} #{names.last}"
names.each { |name| File.delete("many/#{name}") }
Dir.rmdir("many")

puts "no such file: #{refused { File.open("none") }}"
puts "exists: #{refused { File.open("copy", "wx") }}"
puts "is a folder: #{refused { File.open("tree", "w") }}"
puts "no folder: #{refused { Dir.children("copy") }}"
puts "not empty: #{refused { Dir.rmdir("tree") }}"
puts "below a file: #{refused { File.open("copy/x") }}"
puts "long name: #{refused { File.open("x" * 300, "w") }}"
puts "closed: #{refused { IO.new(99) }}"

FileUtils.rm(%w[text.txt binary copy hard soft])
FileUtils.rm_r("tree")
File.write("kept.txt", "by the guest\n")
puts "left #{Dir.children(".").sort}"

# Work for a real Ruby: big numbers, fibers, exceptions, JSON, regular expressions, sorting, files.
require "digest"
require "json"
require "set"

# The spigot of Gibbons as an endless enumerator, which is a fiber.
def pi_digits
  Enumerator.new do |digits|
    q, r, t, k, n, l = 1, 0, 1, 1, 3, 3
    loop do
      if 4 * q + r - t < n * t
        digits << n
        q, r, n = 10 * q, 10 * (r - n * t), (10 * (3 * q + r)) / t - 10 * n
      else
        q, r, t, k, n, l = q * k, (2 * q + r) * l, t * l, k + 1, (q * (7 * k + 2) + r * l) / (t * l), l + 2
      end
    end
  end
end

def primes_below(limit)
  sieve = Array.new(limit, true)
  sieve[0] = sieve[1] = false
  (2..Integer.sqrt(limit)).each do |i|
    (i * i).step(limit - 1, i) { |n| sieve[n] = false } if sieve[i]
  end
  sieve.count(true)
end

Point = Struct.new(:x, :y) do
  include Comparable
  def <=>(other) = [x, y] <=> [other.x, other.y]
end

puts "ruby #{RUBY_VERSION[/\d+/]} on #{RUBY_PLATFORM}, arguments #{ARGV.inspect}"
digits = pi_digits
puts "pi #{Array.new(60) { digits.next }.join}"
fibonacci = Hash.new { |known, n| known[n] = n < 2 ? n : known[n - 1] + known[n - 2] }
puts "fibonacci(200) #{(0..200).map { |n| fibonacci[n] }.last}"
puts "primes below 100000: #{primes_below(100_000)}"
puts "30! #{(1..30).inject(:*)} 2/3+1/7 #{2r / 3 + 1r / 7} (1+2i)**5 #{(1 + 2i)**5}"
puts "sqrt(2) #{Integer.sqrt(2 * 10**78).to_s.insert(1, ".")}"
puts "sha256 #{Digest::SHA256.hexdigest("coracle" * 1000)}"
text = "the quick brown fox jumps over the lazy dog and the other fox"
counts = text.scan(/\p{Lower}+/).tally.sort_by { |word, count| [-count, word] }.to_h
puts "json #{JSON.generate(counts)}"
parsed = JSON.parse('{"a": [1, 2.5, null, true], "b": {"ä": "\u00df\n"}}', symbolize_names: true)
puts "parsed #{parsed[:a]} #{parsed[:b].keys} #{parsed.dig(:b, :ä)}"
puts "pretty #{JSON.pretty_generate(parsed[:a]).lines.size} lines"
puts "points #{[Point[2, 1], Point[1, 9], Point[1, 2]].sort.map(&:to_a)} #{Point[1, 2].clamp(Point[1, 5], Point[3, 0]).to_a}"
puts "unicode #{"größer".upcase} #{"größer".reverse} #{"größer".bytesize} #{"größer".encode("UTF-16LE").bytesize}"
puts "names #{text.gsub(/(?<first>\w)(?<rest>\w*)/) { $~[:first].upcase + $~[:rest] }}"
puts "format #{format("%08.3f|%-6s|%+d|%x|%e", Math::PI, "ab", 5, 48_879, 12_345.678)}"

case { name: "ruby", tags: ["a", "b"], size: 3 }
in { name: String => name, tags: [_, "b"], size: 1..5 => size }
  puts "pattern #{name} #{size}"
end

# Thrown and caught far apart: here Ruby unwinds the stack by asyncify.
def deep(n, &block) = n.zero? ? block.call : deep(n - 1, &block)
puts "caught #{catch(:found) { deep(100) { throw :found, "deep down" } }}"
caught = 1000.times.count do |n|
  raise ArgumentError, "odd" if n.odd?
rescue ArgumentError
  true
else
  false
end
puts "rescued #{caught}"
squares = Fiber.new { 5.times { |n| Fiber.yield n * n }; :done }
puts "fiber #{Array.new(6) { squares.resume }}"
words = Enumerator.produce("a", &:succ).lazy.select { |word| word.size == 2 }.first(3)
puts "lazy #{words}"
random = Random.new(42)
numbers = Array.new(20_000) { random.rand(1_000_000) }
sorted = numbers.sort
puts "sorted #{sorted.each_cons(2).all? { |a, b| a <= b }} #{sorted == numbers.sort_by { |n| n }} #{numbers.to_set.size == numbers.uniq.size}"
puts "packed #{[1, 2.5, "abc"].pack("Nga*").unpack("Nga*")}"
GC.start
puts "collected #{GC.count.positive?}"

File.open("/tmp/lines.txt", "w") { |out| 1000.times { |n| out.puts(n * n) } }
sum = File.foreach("/tmp/lines.txt").sum(&:to_i)
puts "sum of squares #{sum} in #{File.size("/tmp/lines.txt")} bytes"
File.delete("/tmp/lines.txt")

begin
  [1].fetch(1)
rescue IndexError => error
  puts "caught #{error.class} #{error.message} line #{error.backtrace_locations[0].lineno}"
end
begin
  nil.no_such_method
rescue NoMethodError => error
  puts "caught #{error.class} #{error.name}"
ensure
  puts "done"
end

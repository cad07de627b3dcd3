import java.math.BigDecimal;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HexFormat;
import org.apache.avro.Conversions;
import org.apache.avro.LogicalType;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericData;
import org.apache.avro.generic.GenericDatumReader;
import org.apache.avro.io.DecoderFactory;

/** Reads lines of a schema and a payload in hexadecimal; prints each decimal, or the name of the class that is read instead. */
public class DecimalTable {
    public static void main(String[] arguments) throws Exception {
        GenericData data = new GenericData();
        data.addLogicalTypeConversion(new Conversions.DecimalConversion());
        for (String line : Files.readAllLines(Path.of(arguments[0]))) {
            String[] parts = line.split("\t", -1);
            Schema schema = new Schema.Parser().setValidate(false).parse(parts[0]);
            byte[] payload = HexFormat.of().parseHex(parts[1]);
            String found;
            try {
                Object datum = new GenericDatumReader<>(schema, schema, data)
                    .read(null, DecoderFactory.get().binaryDecoder(payload, null));
                found = datum instanceof BigDecimal decimal ? decimal.toPlainString() : "no decimal";
            } catch (RuntimeException failed) {
                found = failed.getClass().getSimpleName();
            }
            System.out.println(found);
        }
    }
}
